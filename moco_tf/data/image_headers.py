"""Checks of an encoded image by its header, before decoding: its size and unsupported formats."""

import tensorflow as tf

MAX_PIXELS = 2**26  # 8192 x 8192; the header of a small file can claim billions
GRAY_PALETTE = b"".join(bytes([i, i, i, 0]) for i in range(256))


def is_16_bit(encoded) -> tf.Tensor:
    """Whether an image file is a PNG of 16 bits a channel: bool scalar."""
    start = tf.strings.substr(tf.strings.join([encoded, "\0" * 32]), 0, 25)
    is_png = tf.strings.substr(start, 0, 4) == b"\x89PNG"
    return is_png & (tf.io.decode_raw(start, tf.uint8)[24] == 16)


def refuse(encoded, max_pixels: int = MAX_PIXELS) -> tf.Operation:
    """An op that raises InvalidArgumentError for an image that must not be decoded.

    It refuses images of more than `max_pixels`, and two formats that TensorFlow 2.21 misreads:
    animated WebP (it writes past its buffer) and BMP with a palette. The decoder refuses bytes that
    are no image.

    Args:
        encoded: string scalar, the bytes of an image file.
        max_pixels: largest width times height.
    """
    start = tf.strings.substr(encoded, 0, 1280)
    padded = tf.strings.join([start, "\0" * 1280])  # the decoder refuses short files
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, 32), tf.uint8), tf.int64)
    is_animated = (tf.strings.substr(padded, 8, 8) == "WEBPVP8X") & (head[20] & 2 != 0)
    # Up to eight bits a pixel are indices into a palette, harmless if that is the gray ramp.
    palette_start = tf.cast(14 + head[14], tf.int32)
    palette = tf.strings.substr(padded, palette_start, len(GRAY_PALETTE))
    is_bmp = tf.strings.substr(padded, 0, 2) == "BM"
    is_indexed = is_bmp & (head[28] <= 8) & (palette != GRAY_PALETTE)
    width, height = _size(encoded, padded, head)
    # The bound on the height keeps the product within int64.
    is_large = width * tf.minimum(height, 2**30) > max_pixels
    return tf.group(
        tf.debugging.Assert(
            ~(is_animated | is_indexed),
            [
                "Animated WebP and BMP with a palette are not supported. Save the image as PNG or "
                "JPEG, or remove it."
            ],
        ),
        tf.debugging.Assert(
            ~is_large,
            [
                f"An image must have at most {max_pixels} pixels. Shrink it, or remove it. "
                "Received width, height:",
                width,
                height,
            ],
        ),
    )


def size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width as the header has them, without decoding: int64 scalars, 0 if unknown.

    Args:
        encoded: string scalar, the bytes of an image file.
    """
    padded = tf.strings.join([tf.strings.substr(encoded, 0, 64), "\0" * 64])
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, 32), tf.uint8), tf.int64)
    width, height = _size(encoded, padded, head)
    return height, width


def _size(encoded, padded, head):
    """Width and height as the header has them, 0 of an unknown format: int64 scalars."""

    def number(first, count, big_endian=False):
        places = range(count - 1, -1, -1) if big_endian else range(count)
        return tf.add_n([head[first + i] * 256**place for i, place in enumerate(places)])

    def jpeg():
        height, width = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64))
        return width, height

    def first_match(text, sizes):
        """The size of the key that `text` starts with; 0 if there is none."""
        return [
            tf.add_n(
                [
                    tf.where(tf.strings.substr(text, 0, len(start)) == start, size[side], 0)
                    for start, size in sizes.items()
                ]
            )
            for side in (0, 1)
        ]

    def other_format():
        vp8l = number(21, 4)
        webp = {
            "VP8X": (number(24, 3) + 1, number(27, 3) + 1),  # the canvas
            "VP8 ": (number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF),  # the frame
            "VP8L": ((vp8l & 0x3FFF) + 1, ((vp8l // 2**14) & 0x3FFF) + 1),  # lossless
        }
        bmp_height = number(22, 4)  # 2**32 - height where the rows begin at the top
        width, height = first_match(
            padded,
            {
                b"\x89PNG": (number(16, 4, True), number(20, 4, True)),
                b"GIF8": (number(6, 2), number(8, 2)),
                b"RIFF": first_match(tf.strings.substr(padded, 12, 4), webp),
                b"BM": (number(18, 4), tf.minimum(bmp_height, 2**32 - bmp_height)),
            },
        )
        return width, height

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other_format)
