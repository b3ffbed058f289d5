"""Folders as people have them: hidden files, link loops, files that are no images."""

import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from moco_tf.data import sources
from moco_tf.data.sources.listing import list_images


@pytest.fixture
def root(tmp_path):
    """Two classes of two images each."""
    for name in ("cat/1.png", "cat/2.JPG", "dog/1.png", "dog/deep/2.webp"):
        draw(tmp_path / "photos" / name)
    return tmp_path / "photos"


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def names(listing):
    return [str(pathlib.Path(path).relative_to(listing.root)) for path in listing.paths]


CLEAN = ["cat/1.png", "cat/2.JPG", "dog/1.png", "dog/deep/2.webp"]


@pytest.mark.parametrize(
    "hidden",
    [
        "cat/._1.png",
        "__MACOSX/cat/1.png",
        ".ipynb_checkpoints/1.png",
        "dog/.thumbnails/1.png",
        "@eaDir/1.png",
        ".git/1.png",
    ],
)
def test_hidden_files_are_no_images_and_hidden_folders_no_classes(hidden, root, caplog):
    draw(root / hidden)
    with caplog.at_level(logging.WARNING):
        source = sources.open_source(f"folder:{root}")
    assert names(list_images(str(root))) == CLEAN
    assert source.classes == ("cat", "dog") and source.labels.tolist() == [0, 0, 1, 1]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"Skipped in {root}: hidden: ") and "(1)" in message


def test_a_folder_may_itself_be_hidden(root):
    hidden = root.rename(root.parent / ".photos")
    assert names(list_images(str(hidden))) == CLEAN


def test_links_are_followed_but_not_in_circles(root, caplog):
    (root / "dog" / "loop").symlink_to("..")
    (root / "dog" / "itself").symlink_to(".")
    (root.parent / "more").mkdir()
    draw(root.parent / "more" / "3.png")
    (root.parent / "more" / "back").symlink_to(root)  # a circle through two links
    (root / "fox").symlink_to(root.parent / "more")
    listing = list_images(str(root))
    assert names(listing) == [*CLEAN, "fox/3.png"]
    assert sorted(listing.loops) == ["dog/itself", "dog/loop", "fox/back"]
    with caplog.at_level(logging.WARNING):
        assert sources.open_source(f"folder:{root}").classes == ("cat", "dog", "fox")
    assert "links to a folder that they are in: dog/itself, dog/loop, fox/back (3)" in caplog.text


def test_two_links_to_one_folder_are_two_folders(root):
    for name in ("fox", "hen"):
        (root / name).symlink_to(root / "cat")
    assert names(list_images(str(root)))[4:] == ["fox/1.png", "fox/2.JPG", "hen/1.png", "hen/2.JPG"]


def test_a_dangling_link_is_left_out_by_name(root):
    (root / "cat" / "3.png").symlink_to("nowhere.png")
    (root / "cat" / "4.png").symlink_to(root / "dog" / "1.png")
    listing = list_images(str(root))
    assert names(listing) == ["cat/1.png", "cat/2.JPG", "cat/4.png", *CLEAN[2:]]
    assert listing.skipped() == "links to files that do not exist: cat/3.png (1)"


def test_other_files_are_counted_by_extension_and_a_class_without_images_is_named(root, caplog):
    for name in ("fox/1.tif", "fox/2.TIF", "cat/notes.txt", "dog/LICENSE"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"II*")
    with caplog.at_level(logging.WARNING):
        assert sources.open_source(f"folder:{root}").classes == ("cat", "dog")
    assert "files that are no images: .tif (2), .txt (1), no extension (1)" in caplog.text
    assert "No images in fox, so it is no class." in caplog.text


def test_a_folder_without_images_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "1.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds none. Skipped: files that .*: .heic \(1\)."):
        sources.open_source(f"folder:{tmp_path}")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("name", ["cat/3", "cat/3.jpg.download", "cat/3.tmp"])
def test_a_known_format_is_an_image_whatever_its_extension(kind, name, root):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name, format=kind)
    assert name in names(list_images(str(root)))


def test_what_only_begins_like_an_image_or_is_text_is_none(root):
    contents = {"cat/a": b"BMW", "cat/b": b"", "cat/c": b"RIFF1234WAVE", "cat/d": b"GIF8"}
    contents["cat/e.txt"] = contents["cat/f.tif"] = b"\x89PNG\r\n\x1a\n"
    for name, content in contents.items():
        (root / name).write_bytes(content)
    listing = list_images(str(root))
    assert names(listing) == CLEAN
    assert listing.others == {("cat", ""): 4, ("cat", ".txt"): 1, ("cat", ".tif"): 1}


def test_images_to_convert_are_counted_class_by_class(root, caplog):
    for name in ("cat/3.tif", "cat/4.TIF", "dog/3.heic"):
        (root / name).write_bytes(b"II*")
    with caplog.at_level(logging.WARNING):
        sources.open_source(f"folder:{root}")
    text = "images of a format that is not read: cat: 2 .tif, dog: 1 .heic. Convert them: mogrify"
    assert text in caplog.text


def test_a_bucket_is_listed_by_one_pattern_a_level(monkeypatch):
    objects = [f"gs://bucket/photos/{name}" for name in (*CLEAN, ".git/1.png", "cat/3.txt")]
    parents = {str(p) for name in objects for p in pathlib.PurePosixPath(name[5:]).parents}
    everything = objects + [f"gs://{p}" for p in parents if p.count("/") > 1]
    patterns = []

    def glob(pattern):  # as TensorFlow matches: a star is within a folder
        patterns.append(pattern)
        depth = pattern.count("/")
        return [p for p in everything if p.count("/") == depth and p.startswith(pattern[:19])]

    monkeypatch.setattr("tensorflow.io.gfile.glob", glob)
    monkeypatch.setattr("tensorflow.io.gfile.walk", None)
    for root in ("gs://bucket/photos", "gs://bucket/photos/"):
        patterns.clear()
        listing = list_images(root)
        assert [path[19:] for path in listing.paths] == CLEAN
        assert listing.hidden == [".git"] and listing.others == {("cat", ".txt"): 1}
        assert patterns == [
            f"gs://bucket/photos{stars}" for stars in ("/*", "/*/*", "/*/*/*", "/*/*/*/*")
        ]
