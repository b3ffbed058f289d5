"""Checks annotated images before anything is trained on them.

    python -m moco_tf check ADDRESS [--masks] [--keypoints] [--test] [--no_images]
    python -m moco_tf check ADDRESS --label_maps [--num_classes=N] [--ignored=11,12]

Prints the images, the classes, and what would be refused, left out or worth a look, with file,
record, field and value; writes the same with pictures to an HTML file. Exits with 1 where training
would be refused. evaluate.py runs the same check before it trains.

ADDRESS is what --config.data.train takes: coco:IMAGES_DIR,JSON, voc:DIR, yolo:DIR, labelme:DIR and
others; or, with --label_maps, voc:DIR:SPLIT, cityscapes:DIR:SPLIT, camvid:DIR:SPLIT and
folders:IMAGES_DIR,LABELS_DIR.
"""

import argparse
import sys

import tensorflow as tf

from moco_tf import storage
from moco_tf.detection import check as detection_check
from moco_tf.log import show_log
from moco_tf.reports import checks
from moco_tf.segmentation import check as segmentation_check

LABEL_MAPS_ONLY = ("camvid:", "folders:")  # addresses that detection does not have


def main(argv: list[str]) -> int:
    """Checks the data that the arguments name, and returns the exit code.

    Args:
        argv: arguments of the command.
    """
    args = _parser().parse_args(argv)
    try:
        if args.label_maps or args.address.startswith(LABEL_MAPS_ONLY):
            check = segmentation_check.check(args.address, args.num_classes, args.ignored)
        else:
            check = detection_check.check(
                args.address,
                training=not args.test,
                masks=args.masks,
                keypoints=args.keypoints,
                read_images=not args.no_images,
            )
        print(checks.text(check))
        storage.write_text(args.output, checks.page(check))
    except (ValueError, OSError, tf.errors.OpError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 1
    print(f"\n{args.output}")
    return int(check.is_refused)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m moco_tf check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def numbers(text):
        return tuple(int(number) for number in text.split(",") if number)

    parser.add_argument("address", help="address of the images")
    parser.add_argument("--masks", action="store_true", help="the run needs masks")
    parser.add_argument("--keypoints", action="store_true", help="the run needs keypoints")
    parser.add_argument("--test", action="store_true", help="it is a test set")
    parser.add_argument("--no_images", action="store_true", help="do not decode all images")
    parser.add_argument("--label_maps", action="store_true", help="label maps, for segmentation")
    parser.add_argument("--num_classes", type=int, help="number of classes, for folders:")
    parser.add_argument("--ignored", type=numbers, default=(), help="numbers in maps to ignore")
    parser.add_argument("--output", default="check.html", help="HTML file to write")
    return parser


def run():
    """Starts the command with the arguments of the process."""
    show_log()
    sys.exit(main(sys.argv[1:]))
