"""All kinds of problems that annotations of objects can have, and which of them refuse training."""

from moco_tf.data.findings import DROPPED, NOTE, REFUSED, WARNING, Kind

# Records that cannot be read
NO_IMAGES = Kind(REFUSED, "no images", "List the images, or export the set again.", counted=False)
NO_CLASSES = Kind(
    REFUSED, "no classes", "List the classes, or export the set again.", counted=False
)
BAD_IMAGE = Kind(
    REFUSED,
    "images with a missing or unusable field",
    "An image needs an id (a whole number or text), file_name, and height and width in px, "
    "positive whole numbers.",
)
BAD_PATH = Kind(REFUSED, "images outside their folder", "Name files below the folder of images.")
BAD_CLASS = Kind(
    REFUSED,
    "classes with a missing or unusable field",
    "A class needs an id, a whole number, and a name.",
)
BAD_BOX = Kind(
    REFUSED,
    "boxes that are not four finite numbers",
    "Write x, y, width, height (COCO), or whichever four numbers the format asks for.",
)
BAD_FIELD = Kind(
    REFUSED,
    "objects with a missing or unusable field",
    "An object needs image_id and category_id; area is a number, and iscrowd is 0 or 1.",
)
BAD_LINE = Kind(REFUSED, "lines or shapes that cannot be read", "Fix or remove them.")
NO_SHARES = Kind(
    REFUSED,
    "lines with numbers above 1",
    "YOLO's coordinates are shares of the image's width and height: divide px by them.",
)
BAD_MASK = Kind(
    REFUSED,
    "masks that are neither polygons nor COCO's run lengths",
    "Write a list of polygons [[x, y, x, y, ...], ...], or run lengths with size [height, width] "
    "and counts. Counts run down the columns, first 0s, then 1s, and so on, and add up to height x "
    "width. Pairs of start and length, cumulative counts and counts along rows are other formats.",
)
BAD_KEYPOINTS = Kind(
    REFUSED,
    "objects whose keypoints do not fit their class",
    "Write x, y and visibility (0, 1 or 2) of each keypoint that the class names.",
)
BAD_DENSEPOSE = Kind(
    REFUSED, "objects whose DensePose annotation cannot be read", "Download DensePose-COCO again."
)
NO_KEYPOINT_NAMES = Kind(
    REFUSED,
    "no keypoint names, or several lists of them",
    "Categories must name their keypoints, all the same; COCO has them in person_keypoints_*.json.",
    counted=False,
)
UNKNOWN_IMAGE = Kind(
    REFUSED,
    "objects whose image_id is no image of the file",
    "Add the missing images, or remove these objects.",
)
UNKNOWN_CLASS = Kind(
    REFUSED,
    "objects whose class is none of the file's",
    "Add the missing classes, or remove these objects.",
)
SAME_IMAGE = Kind(REFUSED, "images with the id of another image", "Give each image its own id.")
SAME_CLASS = Kind(REFUSED, "classes with the id of another class", "Give each class its own id.")
NO_ANNOTATION = Kind(
    REFUSED, "listed images without an annotation file", "Add the files, or shorten the list."
)
BAD_FILE = Kind(
    REFUSED, "annotation files that cannot be read", "Fix, replace or remove these files."
)
NO_IMAGE_FILE = Kind(
    REFUSED, "annotation files without their image", "Add the images, or remove these files."
)

# Geometry that contradicts itself
SHARES = Kind(
    REFUSED,
    "boxes within [0, 1] px",
    "They look like shares of the image: write px (YOLO's shares are read by yolo:DIR).",
)
OTHER_SIZE = Kind(
    REFUSED,
    "masks of another size than their images",
    "Run lengths must have the size [height, width] of the image. Export the masks again.",
)
FAR = Kind(
    REFUSED,
    "masks that reach far beyond their images",
    "Coordinates are px of the image. (Such a mask cannot be drawn in finite memory.)",
)
CORNERS = Kind(
    WARNING,
    "boxes that end beyond their images, or have 3 times the area of their masks",
    "They look like x1, y1, x2, y2: COCO's boxes are x, y, width, height.",
)
BEYOND = Kind(
    WARNING,
    "boxes that end beyond their images",
    "They are clipped for training. Look at their pictures.",
)
OUTSIDE = Kind(
    WARNING,
    "masks that lie outside their boxes",
    "Training sees only the part within the box. Run lengths along rows, a swapped size or masks "
    "of another image look like that.",
)
KEYPOINTS_OUTSIDE = Kind(
    WARNING,
    "objects with most keypoints outside their boxes",
    "Such keypoints are not learned. Check their order x, y, visibility and their unit, px.",
)
VISIBILITY = Kind(
    WARNING, "objects with visibilities other than 0, 1, 2", "Above 0 counts as labeled."
)
TWICE = Kind(
    WARNING,
    "objects that repeat another of the same image, class and box",
    "Remove the copies, unless they are meant.",
)
MANY_CROWDS = Kind(
    WARNING,
    "objects that are crowds (iscrowd=1), most of the file's",
    "Crowds are not learned. CVAT writes iscrowd=1 for every mask: set it to 0 for single objects.",
)
SAME_FILE = Kind(
    WARNING,
    "images whose file is that of another image",
    "List an image once, with all its objects: those of the other copies would be background.",
)
SIMILAR_CLASSES = Kind(
    WARNING,
    "classes whose names differ in case or spaces only",
    "Give objects of one class one name.",
)
SAME_NAME = Kind(
    WARNING,
    "classes with the name of another class",
    "Their ids are added to their names. Remove the class that is not meant.",
)
TEXT_IDS = Kind(
    WARNING,
    "ids that are text in one place and numbers in another",
    "They are matched by their digits.",
)
NO_TWIN = Kind(
    WARNING,
    "keypoints named for a side that have no counterpart on the other",
    "In mirrored images they keep their names. Rename them, or give the pairs by "
    "--config.data.keypoint_pairs.",
)
UNPAIRED = Kind(
    NOTE,
    "keypoints without a left or right counterpart",
    "In mirrored images they keep their names. Give pairs by --config.data.keypoint_pairs.",
)
NO_SIGMAS = Kind(
    NOTE,
    "keypoints other than COCO's 17, without sigmas",
    "They are scored by PCK, not OKS. Give sigmas by --config.data.keypoint_sigmas.",
)

# What training leaves out
SMALL = Kind(DROPPED, "boxes at most 1 px wide or high")
SMALL_TEST = Kind(
    WARNING,
    "test boxes at most 1 px wide or high",
    "Detectors miss them, which lowers the score. Draw them again, or remove them.",
)
NO_MASK = Kind(DROPPED, "objects without a mask")
SHORT_POLYGON = Kind(
    DROPPED, "polygons of fewer than 3 points", "The other polygons of their objects stay."
)
NO_KEYPOINT_CLASS = Kind(DROPPED, "objects of classes without keypoints")
OTHER_SHAPE = Kind(
    DROPPED, "shapes that are no boxes, polygons or masks", "Draw them again as polygons."
)
IGNORED_LABEL = Kind(DROPPED, "shapes labeled as ignored or as background")
EMPTY = Kind(
    DROPPED, "images without objects", "--config.data.keep_empty=true trains on them as background."
)
NOTHING_LEFT = Kind(DROPPED, "images without an object to train on")
NO_LABELED_KEYPOINTS = Kind(DROPPED, "images without labeled keypoints")
NO_DENSEPOSE = Kind(DROPPED, "images without DensePose's points")
KEPT_EMPTY = Kind(NOTE, "images without objects, kept as background")
EMPTY_TEST = Kind(NOTE, "test images without objects", "A detection in them is wrong.")
UNUSED_CLASS = Kind(NOTE, "classes without an object")
NO_KEYPOINTS = Kind(NOTE, "objects without the field keypoints", "They count as not labeled.")

# Sets that nothing can be learned from or scored on
NO_OBJECTS = Kind(REFUSED, "no objects", "Check the address and the files.", counted=False)
ONLY_CROWDS = Kind(
    REFUSED,
    "nothing but crowds (iscrowd=1) and difficult objects",
    "These are neither learned nor scored. CVAT writes iscrowd=1 for every mask: set it to 0 for "
    "single objects.",
    counted=False,
)
NONE_LEFT = Kind(REFUSED, "nothing left to train on", "Fix what was dropped.", counted=False)
NO_MASKS = Kind(
    REFUSED,
    "no masks",
    "The run must have objects with masks: add segmentation, or use --config.masks=false.",
    counted=False,
)
NO_LABELED = Kind(
    REFUSED,
    "no labeled keypoint",
    "The run must have objects with keypoints: label some, or use --config.keypoints=false.",
    counted=False,
)
NO_SURFACE = Kind(
    REFUSED,
    "no DensePose annotations",
    "Objects must have dp_masks, dp_x, dp_y, dp_I, dp_U and dp_V.",
    counted=False,
)

# Files of images
UNREADABLE = Kind(
    REFUSED,
    "images that are missing or cannot be decoded",
    "Add or replace the files, or remove these images from the annotations.",
)
WRONG_SIZE = Kind(
    REFUSED,
    "images of another size than annotated",
    "Fix the sizes or the files, or remove these images from the annotations.",
)
SWAPPED_SIZE = Kind(
    REFUSED, "images whose annotated height and width are swapped", "Swap them in the file."
)
TURNED = Kind(
    REFUSED,
    "images that their EXIF orientation turns by 90 degrees, annotated as turned",
    "Images are read as they are stored. Store them turned, for example by `mogrify -auto-orient "
    "*.jpg` or PIL's ImageOps.exif_transpose.",
)
MAYBE_TURNED = Kind(
    WARNING,
    "images that their EXIF orientation turns or mirrors",
    "Images are read as they are stored, but most tools annotate what viewers show: the boxes may "
    "be turned or upside down. Look at their pictures; `mogrify -auto-orient *.jpg` stores them "
    "turned.",
)
