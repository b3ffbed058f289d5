"""A look at some images before a run: pixels that viewers turn, images that are nearly constant."""

import re

import numpy as np
import tensorflow as tf

from moco_tf.data import exif, image_headers
from moco_tf.data.sources import Source, Stream
from moco_tf.log import log

MOST_IMAGES = 32  # that are looked at, evenly over the source
NEARLY_CONSTANT = 16  # largest range of the values, of 256


def look_at(source: Source | Stream):
    """Warns of what is legal in image files but rarely meant. Streams are not looked at.

    Args:
        source: images; those that cannot be read or decoded are left to the input pipeline.
    """
    if isinstance(source, Stream) or not source.encoded:
        return
    count = min(source.num_examples, MOST_IMAGES)
    turned, dark, values = [], [], []
    for number in tf.constant(np.arange(count) * source.num_examples // count, tf.int64):
        try:
            encoded = source.read(number)
            image = source.decode(encoded).numpy()
        except tf.errors.OpError:
            continue
        name = source.name(number).numpy().decode()
        if exif.orientation(encoded.numpy()[: exif.HEAD_BYTES]) != 1:
            turned.append(name)
        if int(image.max()) - int(image.min()) < NEARLY_CONSTANT:
            dark.append(name)
        if image_headers.is_16_bit(encoded):
            values.append(int(tf.reduce_max(tf.io.decode_png(encoded, dtype=tf.uint16))))
    if turned:
        log.warning(
            "%d of %d images looked at, such as %s, have an EXIF orientation. Pixels are used as "
            "they are stored, in training and serving alike. To turn the files: mogrify "
            "-auto-orient FILES (ImageMagick).",
            len(turned),
            count,
            turned[0],
        )
    if len(dark) > count / 2:
        log.warning(
            "%d of %d images looked at, such as %s, are nearly constant.%s",
            len(dark),
            count,
            dark[0],
            _white(values),
        )


def why_bad(source: Source | Stream, name: str) -> str:
    """Why an image file cannot be decoded, in words after its name; "" if it is not known.

    Args:
        source: images that are files.
        name: name of the image, or its end.
    """
    files = getattr(source, "files", ())
    number = next((i for i, path in enumerate(files) if path.endswith(name)), None)
    if not name or number is None:
        return ""
    try:
        source.image(tf.constant(number, tf.int64))
    except tf.errors.InvalidArgumentError as error:
        size = re.search(r"at most (\d+) pixels.*height:\D*(\d+)\D+(\d+)", str(error), re.S)
        if size:
            limit, width, height = size.groups()
            return f" ({width} x {height} px; --config.data.max_pixels={limit})"
    except tf.errors.OpError:
        return " (it cannot be read)"
    return ""


def _white(values):
    """Advice for 16-bit images that use a part of the range; "" for others."""
    if not values:
        return ""
    white = 2 ** max(values).bit_length() - 1
    return (
        f" They are 16-bit files with values up to {max(values)}: to make that white, set "
        f"--config.data.white={white}."
    )
