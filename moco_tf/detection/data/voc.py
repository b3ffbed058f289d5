"""Reader of Pascal VOC's XML: VOC's own folders, and those of LabelImg, CVAT and Roboflow."""

import os
import xml.etree.ElementTree

import tensorflow as tf

from moco_tf import storage
from moco_tf.data.class_names import VOC
from moco_tf.data.findings import Findings
from moco_tf.detection.data import problems
from moco_tf.detection.data.objects import LARGEST_PX, Objects, RawAnnotations

ADDRESSES = ("voc:VOC_DIR:SPLIT[+VOC_DIR:SPLIT]", "voc:DIR")
IMAGES = ("JPEGImages", "images", "")  # folders of images beside a folder Annotations
ERRORS = (  # of files that are not VOC's
    xml.etree.ElementTree.ParseError,
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,
)
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads the files of one or several splits, such as VOC2007 and VOC2012 trainval, or a folder.

    voc:DIR reads all XML files in DIR or DIR/Annotations, with the images beside them, in
    DIR/JPEGImages or in DIR/images. Classes are VOC's 20 if the annotations name no others, else
    all that the folder's annotations name. Boxes become continuous: the files number pixels from 1,
    both ends included.

    Source: detectron2/data/datasets/pascal_voc.py.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: must be false; VOC has no masks of all objects.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for an address without files.
    """
    if masks or keypoints or densepose:
        raise ValueError(
            "VOC's annotations give boxes only; they have no masks of all objects, and no "
            f"keypoints or DensePose. Received: {address!r}. Use coco:IMAGES_DIR,JSON."
        )
    files = _Files()
    folder = os.path.expanduser(rest)
    if tf.io.gfile.isdir(folder) and "+" not in rest:
        roots = [folder]
        _read_folder(files, folder, address)
    else:
        roots = [_read_split(files, part, address) for part in rest.split("+")]
    names = files.class_names
    classes = VOC if set(names) <= set(VOC) else _all_classes(roots)
    number_of = {name: number for number, name in enumerate(classes)}
    files.objects.label = [number_of[name] for name in names]
    return RawAnnotations(
        images=files.images,
        ids=files.ids,
        sizes=files.sizes,
        classes=classes,
        category_ids=list(range(len(classes))),
        objects=files.objects,
        files=files.paths,
        findings=files.findings,
    )


class _Files:
    """Columns of the XML files read so far."""

    def __init__(self):
        self.images, self.ids, self.sizes, self.paths = [], [], [], []
        self.objects, self.class_names = Objects(), []  # the class of each object
        self.findings = Findings()

    def add(self, path, name, image_path):
        """Reads an XML file; what cannot be read becomes a finding.

        Args:
            path: path of the file.
            name: id of the image.
            image_path: function from the file's `filename` to the path of the image.
        """
        try:
            file_name, size, boxes = _parse(path)
        except tf.errors.NotFoundError:
            self.findings.add(problems.NO_ANNOTATION, path)
            return
        except ERRORS as error:
            text = f"{type(error).__name__}: {error}"
            self.findings.add(problems.BAD_FILE, path, value=f"must be VOC's XML, {text}")
            return
        if min(size) < 1 or max(size) > LARGEST_PX:
            self.findings.add(problems.BAD_IMAGE, path, "size", "height, width", size)
            return
        image = image_path(file_name)
        if image is None:
            self.findings.add(problems.NO_IMAGE_FILE, path, "", "filename", file_name)
            return
        for number, (class_name, difficult, box) in enumerate(boxes, 1):
            self.objects.add(len(self.images), 0, box, difficult=difficult, record=number)
            self.class_names.append(class_name)
        self.images.append(image)
        self.ids.append(name)
        self.sizes.append(size)
        self.paths.append(path)


def _read_split(files, part, address):
    """Reads VOC_DIR:SPLIT and returns VOC_DIR."""
    root, colon, split = part.rpartition(":")
    root = os.path.expanduser(root)
    listed = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
    if not colon or not tf.io.gfile.exists(listed):
        raise ValueError(
            "The address must be voc:VOC_DIR:SPLIT, such that VOC_DIR/ImageSets/Main/SPLIT.txt "
            f"exists, or voc:DIR, a folder of XML files. Received: {address!r}."
        )
    for name in (line.split()[0] for line in _read(listed).splitlines() if line.strip()):

        def image_path(file_name, name=name):
            suffix = os.path.splitext(file_name)[1] or ".jpg"
            return storage.below(root, "JPEGImages", name + suffix)

        files.add(storage.below(root, "Annotations", f"{name}.xml"), name, image_path)
    return root


def _read_folder(files, root, address):
    """Reads all XML files of a folder."""
    paths = _xml_files(root)
    if not paths:
        raise ValueError(
            "The address voc:DIR must be a folder with XML files in it or in DIR/Annotations. "
            f"Received: {address!r}, without any. With lists of splits, use voc:VOC_DIR:SPLIT."
        )
    for path in paths:
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]

        def image_path(file_name, folder=folder, stem=stem):
            folders = [folder, *(os.path.join(root, name) for name in IMAGES)]
            names = [os.path.basename(file_name.replace("\\", "/"))] if file_name else []
            names += [stem + ending for ending in ENDINGS]
            places = [os.path.join(place, name) for place in folders for name in names]
            return next((place for place in places if tf.io.gfile.exists(place)), None)

        files.add(path, stem, image_path)


def _xml_files(root):
    found = tf.io.gfile.glob(os.path.join(root, "Annotations", "*.xml"))
    return sorted(found or tf.io.gfile.glob(os.path.join(root, "*.xml")))


def _parse(path):
    """The file name, (height, width), and the objects of an XML file: (name, difficult, box)."""
    root = xml.etree.ElementTree.fromstring(_read(path))
    if root.find("image") is not None:
        raise ValueError("it looks like CVAT's own XML: export as Pascal VOC or COCO")
    size = tuple(int(float(root.find(f"size/{name}").text)) for name in ("height", "width"))
    objects = []
    for element in root.iter("object"):
        ends = element.find("bndbox")
        x1, y1, x2, y2 = (float(ends.find(e).text) for e in ("xmin", "ymin", "xmax", "ymax"))
        difficult = element.findtext("difficult", "0").strip() == "1"
        box = x1 - 1, y1 - 1, x2, y2
        if not sum(box) - sum(box) == 0:
            raise ValueError(f"bndbox {box} has no finite numbers")
        objects.append((element.find("name").text.strip(), difficult, box))
    return root.findtext("filename", "") or "", size, objects


def _all_classes(roots):
    """The names of all annotated objects in these folders, sorted, whatever their split."""
    names = set()
    for path in (path for root in roots for path in _xml_files(root)):
        try:
            _, _, objects = _parse(path)
        except ERRORS:
            continue  # a finding, if it is of the split
        names |= {name for name, _, _ in objects}
    return tuple(sorted(names))


def _read(path):
    with tf.io.gfile.GFile(path) as file:
        return file.read()
