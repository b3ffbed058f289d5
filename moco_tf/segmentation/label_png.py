"""Decoding of label maps in PNG files to class numbers, with or without a palette."""

import binascii

import tensorflow as tf

from moco_tf.data import image_headers

# TensorFlow decodes a PNG with a palette to colors. To get the stored numbers, the header becomes
# that of a grayscale PNG: the color type, one byte, changes from 3 to 0, and the checksum with it.
# The checksum is linear, so the same bits of it flip in every file.
HEADER = b"IHDR" + bytes(13)
CHANGED = HEADER[:13] + b"\x03" + HEADER[14:]
CHECKSUM = (binascii.crc32(HEADER) ^ binascii.crc32(CHANGED)).to_bytes(4, "big")
BYTES = [bytes([i]) for i in range(256)]


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG of one channel, with or without a palette, 1 to 8 bits deep.

    Args:
        encoded: content of the file, string scalar.

    Returns:
        Stored numbers, uint8 HxW.

    Raises:
        InvalidArgumentError: for any other file.
    """

    def byte(position):
        return tf.io.decode_raw(tf.strings.substr(encoded, position, 1), tf.uint8)[0]

    start = tf.strings.substr(encoded, 0, 4)
    is_png = (tf.strings.length(encoded) > 33) & (start == b"\x89PNG")
    png = tf.debugging.Assert(is_png, ["A label map must be a PNG."])
    with tf.control_dependencies([png, image_headers.refuse(encoded)]):
        encoded = tf.identity(encoded)
    color, depth = byte(25), byte(24)
    one_channel = ((color == 0) | (color == 3)) & (depth <= 8)
    text = "A label map must have one channel, of at most 8 bits."
    with tf.control_dependencies([tf.debugging.Assert(one_channel, [text])]):
        gray = tf.cond(color == 3, lambda: _without_palette(encoded), lambda: encoded)
    pixels = tf.io.decode_png(gray, channels=1)[..., 0]
    # TensorFlow scales numbers of fewer than 8 bits to 0..255; undo it.
    highest = tf.bitwise.left_shift(1, tf.cast(depth, tf.int32)) - 1
    step = tf.cast(255 // highest, tf.uint8)
    return pixels // step


def _without_palette(encoded):
    checksum = tf.io.decode_raw(tf.strings.substr(encoded, 29, 4), tf.uint8)
    checksum = tf.bitwise.bitwise_xor(checksum, tf.constant(list(CHECKSUM), tf.uint8))
    with tf.device("CPU"):
        checksum = tf.strings.reduce_join(
            tf.gather(tf.constant(BYTES), tf.cast(checksum, tf.int32))
        )
    parts = [tf.strings.substr(encoded, 0, 25), b"\0", tf.strings.substr(encoded, 26, 3), checksum]
    return tf.strings.join([*parts, tf.strings.substr(encoded, 33, -1)])
