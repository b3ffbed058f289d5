"""Lists the image files of a folder, and counts what it skips: hidden and other files, link loops.

A local file with another extension, or none, is an image if its content is one.

Hidden are names with a leading dot, such as macOS' `._IMG.jpg` and Jupyter's `.ipynb_checkpoints`.
"""

import collections
import dataclasses
import os

import tensorflow as tf

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
CONVERTIBLE = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".tif", ".tiff")  # images nevertheless
TEXTS = (".csv", ".json", ".md", ".txt", ".xml")  # beside images, but not looked into
NO_DATA = ("__MACOSX", "@eaDir", "#recycle")  # folders that archives and file servers add


@dataclasses.dataclass
class Listing:
    """The images of a folder, and what was skipped.

    Attributes:
        root: the folder.
        paths: paths of the images, sorted.
        hidden: paths of hidden files and folders, relative to `root`.
        loops: paths of links to a folder that they are in.
        missing: paths of links to images that do not exist.
        others: number of other files, by first-level sub-folder ("" for none) and extension.
    """

    root: str
    paths: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    loops: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    others: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def skipped(self) -> str:
        """What was skipped, in words; "" for nothing."""
        parts = []
        for title, names in (
            ("hidden", self.hidden),
            ("links to a folder that they are in", self.loops),
            ("links to files that do not exist", self.missing),
        ):
            if names:
                more = ", ..." if len(names) > 3 else ""
                parts.append(f"{title}: {', '.join(sorted(names)[:3])}{more} ({len(names)})")
        if self.others:
            by_extension = collections.Counter()
            for (_, extension), count in self.others.items():
                by_extension[extension or "no extension"] += count
            ordered = sorted(by_extension.items(), key=lambda item: (-item[1], item[0]))
            counts = [f"{name} ({count})" for name, count in ordered[:5]]
            parts.append(f"files that are no images: {', '.join(counts)}")
        if convertible := self.convertible():
            parts.append(f"{convertible}. Convert them: mogrify -format jpg FILES (ImageMagick)")
        return "; ".join(parts)

    def convertible(self) -> str:
        """Images in formats that are not read, class by class, in words; "" for none."""
        by_folder = [
            f"{folder or 'no folder'}: {count} {extension}"
            for (folder, extension), count in sorted(self.others.items())
            if extension in CONVERTIBLE
        ]
        if not by_folder:
            return ""
        more = ", ..." if len(by_folder) > 5 else ""
        return f"images of a format that is not read: {', '.join(by_folder[:5])}{more}"

    def empty_folders(self) -> list[str]:
        """First-level sub-folders with files, none of which is an image."""
        start = len(self.root.rstrip("/")) + 1
        with_images = {path[start:].split("/")[0] for path in self.paths}
        return sorted({folder for folder, _ in self.others if folder} - with_images)


def _walk_objects(root):
    """`os.walk` of a gs:// folder, by one request a thousand names for each level of folders.

    `tf.io.gfile.walk` asks twice for each name. A pattern makes TensorFlow list all names below
    the folder, and keeps those of its depth: files, and folders without a mark.
    """
    levels, pattern = [], root
    while not levels or levels[-1]:
        pattern += "/*"
        levels.append(tf.io.gfile.glob(pattern))
    below = collections.defaultdict(lambda: ([], []))
    folders = {os.path.dirname(path) for level in levels[1:] for path in level}
    for path in (path for level in levels for path in level):
        folder, name = os.path.split(path)
        below[folder][path not in folders].append(name)

    def walk(folder):
        subfolders, files = below[folder]
        yield folder, subfolders, files
        for name in subfolders:  # those that are left
            yield from walk(os.path.join(folder, name))

    return walk(root)


def is_image(path: str, extension: str) -> bool:
    """Whether a local file is a JPEG, PNG, WebP, BMP or GIF by its content.

    Args:
        path: file.
        extension: its extension, lower case; those of text and of `CONVERTIBLE` are not looked at.
    """
    if extension in TEXTS or extension in CONVERTIBLE:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    is_bmp = head[:2] == b"BM" and head[6:10] == bytes(4)  # two reserved numbers
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
    return is_bmp or is_webp or head.startswith(starts)


def list_images(root: str) -> Listing:
    """Lists all images below a folder, local or gs://. Links are followed, but not in circles."""
    root = root.rstrip("/") or root
    listing = Listing(root)
    is_remote = "://" in root
    # Real paths of each folder and of those it was reached through.
    above = {root: (os.path.realpath(root),)}
    if root.startswith("gs://") and not set(root) & set("*?[\\"):
        walk = _walk_objects(root)
    else:
        walk = tf.io.gfile.walk(root) if is_remote else os.walk(root, followlinks=True)
    for folder, subfolders, files in walk:
        relative = "" if folder == root else os.path.relpath(folder, root)
        entered = []
        for name in subfolders:
            name = name.rstrip("/")  # as object storage lists them
            path = os.path.join(folder, name)
            if name.startswith(".") or name in NO_DATA:
                listing.hidden.append(os.path.join(relative, name))
                continue
            if not is_remote:
                real = os.path.realpath(path) if os.path.islink(path) else None
                real = real or os.path.join(above[folder][-1], name)
                if real in above[folder]:
                    listing.loops.append(os.path.join(relative, name))
                    continue
                above[path] = (*above[folder], real)
            entered.append(name)
        subfolders[:] = entered
        for name in files:
            path = os.path.join(folder, name)
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                listing.hidden.append(os.path.join(relative, name))
            elif extension not in EXTENSIONS and (is_remote or not is_image(path, extension)):
                listing.others[relative.split("/")[0], extension] += 1
            elif not is_remote and os.path.islink(path) and not os.path.exists(path):
                listing.missing.append(os.path.join(relative, name))
            else:
                listing.paths.append(path)
    listing.paths.sort()
    return listing
