"""Reader of LVIS v0.5 and v1: COCO's JSON with image names of its own."""

import os

import tensorflow as tf

from moco_tf.detection.data import coco
from moco_tf.detection.data.objects import RawAnnotations

ADDRESSES = ("lvis:IMAGES_DIR,JSON",)


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads a file of annotations.

    IMAGES_DIR holds the images, or COCO's folders train2017 and val2017 with them.

    Source: detectron2/data/datasets/lvis.py.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to read masks.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for what `coco.read` refuses, and if keypoints or DensePose are needed.
    """
    if keypoints or densepose:
        raise ValueError(
            f"LVIS has neither keypoints nor DensePose. Received: {address!r}. Use coco:."
        )
    path, *folders = files(address, rest)
    root, _ = coco.folder_and_file(address, rest)
    folders = {os.path.basename(folder) for folder in folders}

    def image_path(image):
        # v1 says only where the image came from: http://.../train2017/000000000001.jpg. v0.5 has
        # names of 2014, COCO_train2014_000000000001.jpg, for images of train2017.
        folder, name = os.path.split(image.get("coco_url") or image["file_name"])
        folder = os.path.basename(folder) or "train2017"
        return os.path.join(root, folder if folder in folders else "", name.split("_")[-1])

    return coco.read_json(path, image_path, masks, keypoints)


def files(address: str, rest: str) -> list[str]:
    """The file that decides what `read` returns, and those of COCO's folders that exist."""
    root, path = coco.folder_and_file(address, rest)
    folders = [os.path.join(root, name) for name in ("train2017", "val2017")]
    return [path, *filter(tf.io.gfile.isdir, folders)]
