"""Exports in the shape of CVAT, Label Studio, Roboflow, LabelImg, labelme and VIA, made by hand.

All hold the same two images of 50 x 40 px: a cat in the first, nothing in the second.
"""

import json

import numpy as np
from PIL import Image

W, H = 50, 40
CAT = [5.0, 10.0, 25.0, 30.0]  # x1, y1, x2, y2
TRIANGLE = [5, 10, 25, 10, 5, 30]


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(path)


def images(folder, names=("a.png", "b.png")):
    for name in names:
        image(folder / name)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def coco(**more):
    """COCO's JSON as the tools fill it in, with a cat in image 1."""
    record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 10, 20, 20], "area": 200}
    record |= {"segmentation": [TRIANGLE], "iscrowd": 0, **more.pop("record", {})}
    content = {
        "images": [
            {"id": 1, "width": W, "height": H, "file_name": "a.png"},
            {"id": 2, "width": W, "height": H, "file_name": "b.png"},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [record],
    }
    return content | more


def cvat_coco(folder):
    images(folder / "images" / "default")
    more = {"attributes": {"occluded": False, "rotation": 0.0}}
    info = {"contributor": "", "date_created": "", "description": "", "url": "", "version": ""}
    content = coco(record=more, licenses=[{"name": "", "id": 0, "url": ""}], info=info)
    for record in content["images"]:
        record |= {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    for category in content["categories"]:
        category["supercategory"] = ""
    write(folder / "annotations" / "instances_default.json", content)
    return f"coco:{folder}/images/default,{folder}/annotations/instances_default.json"


def label_studio_coco(folder):
    images(folder / "images", ("8a3-a.png", "8a3-b.png"))
    content = coco(info={"version": "1.0", "contributor": "Label Studio"})
    for record in content["images"]:
        record["file_name"] = f"images/8a3-{record['file_name']}"
    content["categories"] = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    content["annotations"][0] |= {"id": 0, "category_id": 0, "ignore": 0}
    write(folder / "result.json", content)
    return f"coco:{folder},{folder}/result.json"


def roboflow_coco(folder):
    images(folder / "train", ("a_png.rf.1.png", "b_png.rf.2.png"))
    content = coco(info={"year": "2024"})
    for record, name in zip(content["images"], ("a_png.rf.1.png", "b_png.rf.2.png"), strict=True):
        record |= {"id": record["id"] - 1, "file_name": name, "extra": {"name": "a.png"}}
    root = {"id": 0, "name": "animals", "supercategory": "none"}
    content["categories"] = [
        root,
        *({**c, "supercategory": "animals"} for c in content["categories"]),
    ]
    content["annotations"][0] |= {"id": 0, "image_id": 0}
    write(folder / "train" / "_annotations.coco.json", content)
    return f"coco:{folder}/train,{folder}/train/_annotations.coco.json"


def via_coco(folder):
    """VIA writes ids as text in places."""
    images(folder)
    content = coco(record={"image_id": "1"}, info={"description": "VIA"})
    write(folder / "via_export_coco.json", content)
    return f"coco:{folder},{folder}/via_export_coco.json"


def xml(name, objects, folder="images"):
    boxes = "".join(
        f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>"
        f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in objects
    )
    return (
        f"<annotation><folder>{folder}</folder><filename>{name}</filename><path>C:\\x\\{name}</path>"
        f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{boxes}</annotation>"
    )


def labelimg_voc(folder):
    images(folder)
    write(folder / "a.xml", xml("a.png", [("cat", CAT)]))
    write(folder / "b.xml", xml("b.png", []))
    return f"voc:{folder}"


def cvat_voc(folder):
    images(folder / "JPEGImages")
    write(folder / "ImageSets" / "Main" / "default.txt", "a\nb\n")
    write(folder / "Annotations" / "a.xml", xml("a.png", [("cat", CAT)]))
    write(folder / "Annotations" / "b.xml", xml("b.png", []))
    return f"voc:{folder}:default"


def label_studio_voc(folder):
    images(folder / "images")
    write(folder / "Annotations" / "a.xml", xml("a", [("cat", CAT)]))
    write(folder / "Annotations" / "b.xml", xml("b", []))
    return f"voc:{folder}"


CENTER = "0 0.3 0.5 0.4 0.5\n"  # the cat
CORNERS = "0 0.1 0.25 0.5 0.25 0.1 0.75\n"  # its triangle


def roboflow_yolo(folder, line=CORNERS):
    images(folder / "train" / "images")
    write(folder / "train" / "labels" / "a.txt", line)
    write(folder / "train" / "labels" / "b.txt", "")
    names = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    write(folder / "data.yaml", f"{names}\nroboflow:\n  license: CC BY 4.0\n")
    return f"yolo:{folder}/train"


def cvat_yolo(folder):
    images(folder / "obj_train_data")
    write(folder / "obj_train_data" / "a.txt", CENTER)
    write(folder / "obj.names", "cat\ndog\n")
    write(folder / "obj.data", "classes = 2\nnames = data/obj.names\n")
    return f"yolo:{folder}/obj_train_data"


def label_studio_yolo(folder):
    images(folder / "images")
    write(folder / "labels" / "a.txt", CENTER)
    write(folder / "classes.txt", "cat\ndog\n")
    write(folder / "notes.json", {"categories": [{"id": 0, "name": "cat"}]})
    return f"yolo:{folder}"


def labelimg_yolo(folder):
    images(folder)
    write(folder / "a.txt", CENTER)
    write(folder / "classes.txt", "cat\ndog\n")
    return f"yolo:{folder}"


def shape(kind, points, label="cat", group=None, **more):
    record = {"label": label, "points": points, "group_id": group, "shape_type": kind}
    return {**record, "description": "", "flags": {}, "mask": None, **more}


def labelme_file(name, shapes, **more):
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name}
    return content | {"imageData": None, "imageHeight": H, "imageWidth": W, **more}


def labelme(folder, shapes=None):
    images(folder)
    shapes = shapes or [shape("polygon", np.reshape(TRIANGLE, (3, 2)).tolist())]
    write(folder / "a.json", labelme_file("a.png", shapes))
    write(folder / "b.json", labelme_file("..\\x\\b.png", []))
    return f"labelme:{folder}"


BOXES = [cvat_voc, labelimg_voc, label_studio_voc, cvat_yolo, label_studio_yolo, labelimg_yolo]
MASKS = [cvat_coco, label_studio_coco, roboflow_coco, via_coco, roboflow_yolo, labelme]
