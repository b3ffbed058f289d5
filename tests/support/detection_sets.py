"""Small sets of annotated images in COCO's format, and predictions near their truth."""

import itertools
import json

import numpy as np
import tiny
from PIL import Image

COCO = tiny.DATA / "tiny_coco"
PERSONS = tiny.DATA / "coco_keypoints_mini"
BCCD = tiny.DATA / "bccd_voc" / "BCCD"
NAMES = ("nose", "left_eye", "right_eye")
FILL = (10, 20, 30)


def tiny_coco(split, name="instances"):
    """The address of a part of tiny_coco."""
    return f"coco:{COCO}/{split}2017,{COCO}/annotations/{name}_{split}2017.json"


def raw(split, name="instances"):
    """The content of its JSON."""
    return json.loads((COCO / "annotations" / f"{name}_{split}2017.json").read_text())


def annotation(image, box, category=7, **more):
    """A record of an object; the box is x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": [corners],
        "iscrowd": 0,
        "area": (x2 - x1) * (y2 - y1),
        **more,
    }


def write_coco(folder, sizes, annotations, categories=({"id": 7, "name": "box"},), images=None):
    """Writes a set in COCO's format; images have ids from 1 on. Returns its address.

    Args:
        folder: to write to.
        sizes: (height, width) of each image.
        annotations: records, numbered here.
        categories: records.
        images: uint8 arrays; None paints the boxes white on black.
    """
    folder.mkdir(exist_ok=True)
    records = []
    for number, (height, width) in enumerate(sizes, 1):
        name = f"{number:03}.png"
        records.append({"id": number, "file_name": name, "height": height, "width": width})
        image = np.zeros((height, width, 3), np.uint8) if images is None else images[number - 1]
        for a in annotations if images is None else ():
            if a["image_id"] == number and not a["iscrowd"]:
                x, y, w, h = (round(v) for v in a["bbox"])
                image[max(y, 0) : y + h, max(x, 0) : x + w] = 255
        Image.fromarray(image).save(folder / name)
    numbered = [{"id": i, **a} for i, a in enumerate(annotations, 1)]
    content = {"images": records, "annotations": numbered, "categories": list(categories)}
    (folder / "set.json").write_text(json.dumps(content))
    return f"coco:{folder},{folder}/set.json"


def perturbed(annotations, seed=0, px=4.0):
    """Predictions near the truth: moved, with random scores, some missing or of a wrong class."""
    rng = np.random.default_rng(seed)
    predictions = []
    for start, stop in itertools.pairwise(annotations.offsets):
        rows = np.arange(start, stop)[rng.random(stop - start) < 0.85]
        label = annotations.labels[rows].copy()
        wrong = rng.random(len(rows)) < 0.1
        label[wrong] = rng.integers(0, len(annotations.classes), wrong.sum())
        predicted = {
            "boxes": annotations.boxes[rows] + rng.normal(0, px, (len(rows), 4)),
            "score": rng.random(len(rows)),
            "label": label,
        }
        if annotations.rles is not None:
            predicted["rles"] = [annotations.rles[i] for i in rows]
        if annotations.keypoints is not None:
            points = annotations.keypoints[rows].copy()
            points[..., :2] += rng.normal(0, px, points[..., :2].shape)
            predicted["keypoints"] = points
        predictions.append(predicted)
    return predictions


def truth(annotations):
    """Predictions equal to the truth, without crowds."""
    predictions = []
    for start, stop in itertools.pairwise(annotations.offsets):
        rows = np.arange(start, stop)[~annotations.crowd[start:stop]]
        predicted = {
            "boxes": annotations.boxes[rows],
            "score": np.ones(len(rows)),
            "label": annotations.labels[rows],
        }
        if annotations.rles is not None:
            predicted["rles"] = [annotations.rles[i] for i in rows]
        if annotations.keypoints is not None:
            predicted["keypoints"] = annotations.keypoints[rows]
        predictions.append(predicted)
    return predictions
