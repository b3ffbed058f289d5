"""Reader of YOLO's text files: boxes and polygons, as Ultralytics, Roboflow, CVAT and others write.

A file has a line for each object: CLASS X Y WIDTH HEIGHT, the center and the size in shares of the
image, or CLASS X Y X Y X Y ..., the corners of a polygon.
"""

import math
import os

import numpy as np
import tensorflow as tf

from moco_tf.data import image_headers
from moco_tf.data.findings import Findings
from moco_tf.detection.data import problems, yolo_names
from moco_tf.detection.data.objects import Objects, RawAnnotations

ADDRESSES = ("yolo:DIR",)
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BEYOND = 1.01  # shares are at most 1, but for rounding


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads the images and text files of a folder.

    DIR has images/ and labels/, or images with their text files beside them. The names of the
    classes stand in data.yaml, classes.txt or obj.names, in DIR or in the next two folders above
    it. An image without a text file has no objects.

    Source: Ultralytics' documentation of its formats for detection, segmentation and pose.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to read polygons.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for a folder without images, or without class names.
    """
    if keypoints or densepose:
        raise ValueError(
            f"YOLO's files give boxes and polygons here, no keypoints and no DensePose. Received: "
            f"{address!r}. Use coco:IMAGES_DIR,JSON."
        )
    root = os.path.expanduser(rest)
    images = _images(root)
    if not images:
        raise ValueError(
            "The address must be yolo:DIR, a folder with images/ and labels/, or with images and "
            f"text files side by side. Received: {address!r}, without images."
        )
    names = yolo_names.find(root, address)
    findings, objects = Findings(), Objects()
    sizes = _sizes(images)
    paths = [_text_file(image) for image in images]
    readable = [number for number, size in enumerate(sizes) if min(size)]
    for number in np.setdiff1d(np.arange(len(images)), readable):
        findings.add(problems.UNREADABLE, images[number])
    for place, number in enumerate(readable):
        if tf.io.gfile.exists(paths[number]):
            lines = _Lines(paths[number], place, sizes[number], names, findings)
            lines.read(objects, masks)
    alone = _without_image(root, set(paths))
    findings.add_each(problems.NO_IMAGE_FILE, alone, lambda path: (path,))
    return RawAnnotations(
        images=[images[i] for i in readable],
        ids=[os.path.relpath(images[i], root) for i in readable],
        sizes=[sizes[i] for i in readable],
        classes=names.classes,
        category_ids=list(range(len(names.classes))),
        objects=objects,
        files=[paths[i] for i in readable],
        findings=findings,
    )


class _Lines:
    """The lines of a text file.

    Args:
        path: path of the file.
        image: number of its image.
        size: height and width of the image, px.
        names: `yolo_names.Names`.
        findings: `Findings` to add to.
    """

    def __init__(self, path, image, size, names, findings):
        self.path = path
        self.image = image
        self.scale = np.array(size[::-1], float)
        self.names = names
        self.findings = findings

    def read(self, objects, masks):
        """Adds the objects of all lines; a line that cannot be read becomes a finding."""
        with tf.io.gfile.GFile(self.path) as file:
            lines = file.read().splitlines()
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._add(objects, masks, f"line {number}", line.strip())

    def _add(self, objects, masks, record, line):
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            self.findings.add(problems.BAD_LINE, self.path, record, value=line[:60])
            return
        if self.names.values_after_box and len(values) == 4 + self.names.values_after_box:
            values = values[:4]  # a box with its keypoints
        is_box, is_polygon = len(values) == 4, len(values) >= 6 and len(values) % 2 == 0
        if not (is_box or is_polygon) or not all(map(math.isfinite, values)):
            text = f"{len(values) + 1} numbers, {line[:60]}"
            self.findings.add(problems.BAD_LINE, self.path, record, value=text)
            return
        if label != label // 1 or not 0 <= label < len(self.names.classes):
            self.findings.add(problems.UNKNOWN_CLASS, self.path, record, "class", label)
            return
        if max(values) > BEYOND:
            self.findings.add(problems.NO_SHARES, self.path, record, value=line[:60])
            return
        points = np.reshape(values, (-1, 2)) * self.scale
        if is_box:
            low, high = points[0] - points[1] / 2, points[0] + points[1] / 2
        else:
            low, high = points.min(axis=0), points.max(axis=0)
        if masks:
            objects.add_polygons([] if is_box else [points.ravel().tolist()])
        box = (*low.tolist(), *high.tolist())
        objects.add(self.image, int(label), box, record=record)


def _images(root):
    """Paths of the images in DIR/images, or in DIR itself, sorted."""
    folder = os.path.join(root, "images")
    folder = folder if tf.io.gfile.isdir(folder) else root
    paths = [
        os.path.join(place, name)
        for place, _, names in tf.io.gfile.walk(folder)
        for name in names
        if name.lower().endswith(ENDINGS) and not name.startswith(".")
    ]
    return sorted(paths)


def _text_file(image):
    """Path of the text file of an image: the last folder images of its path becomes labels."""
    folder, name = os.path.split(image)
    parts = folder.split(os.sep)
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        parts[place] = "labels"
    return os.path.join(os.sep.join(parts), os.path.splitext(name)[0] + ".txt")


def _without_image(root, known):
    """Text files in DIR/labels that belong to no image, sorted."""
    walk = tf.io.gfile.walk(os.path.join(root, "labels"))
    paths = [os.path.join(place, name) for place, _, names in walk for name in names]
    texts = [path for path in paths if path.endswith(".txt") and path not in known]
    return sorted(path for path in texts if os.path.basename(path) != "classes.txt")


def _sizes(images):
    """Heights and widths as the images' headers have them; 0 for what is no image."""
    data = tf.data.Dataset.from_tensor_slices(images).map(_size, tf.data.AUTOTUNE)
    return [tuple(map(int, size)) for size in data.as_numpy_iterator()]


@tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
def _size(path):
    return tf.stack(image_headers.size(tf.io.read_file(path)))
