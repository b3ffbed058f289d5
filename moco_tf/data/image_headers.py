"""What an encoded image says of itself, before it is decoded. Graph functions of its bytes."""

import tensorflow as tf

MAX_PIXELS = 2**26  # of an image; a small file can announce billions
GRAY_PALETTE = b"".join(bytes([i, i, i, 0]) for i in range(256))


def refuse(encoded):
    """An op that raises InvalidArgumentError for what must not, or cannot rightly, be decoded.

    That is: more than `MAX_PIXELS`, and two kinds that TensorFlow 2.21 misreads: animated WebP (it
    writes past its buffer) and BMP with a palette. What is no image is left to the decoder.
    """
    start = tf.strings.substr(encoded, 0, 1280)
    padded = tf.strings.join([start, "\0" * 1280])  # short files are the decoder's to refuse
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, 32), tf.uint8), tf.int64)
    animated = (tf.strings.substr(padded, 8, 8) == "WEBPVP8X") & (head[20] & 2 != 0)
    # Up to eight bits a pixel are indices into a palette, harmless if that is the gray ramp.
    palette_start = tf.cast(14 + head[14], tf.int32)
    palette = tf.strings.substr(padded, palette_start, len(GRAY_PALETTE))
    is_bmp = tf.strings.substr(padded, 0, 2) == "BM"
    indexed = is_bmp & (head[28] <= 8) & (palette != GRAY_PALETTE)
    large = _pixels(encoded, padded, head) > MAX_PIXELS
    return tf.group(
        tf.debugging.Assert(
            ~(animated | indexed), ["Animated WebP and BMP with a palette are not supported."]
        ),
        tf.debugging.Assert(~large, [f"An image may have {MAX_PIXELS} pixels."]),
    )


def _pixels(encoded, padded, head):
    """Width times height as the header has them; 0 of an unknown format: int64."""

    def number(first, count, big_endian=False):
        places = range(count - 1, -1, -1) if big_endian else range(count)
        return tf.add_n([head[first + i] * 256**place for i, place in enumerate(places)])

    def jpeg():
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64))

    def others():
        webp = {
            # the canvas; the frame; a bit stream of its own
            "VP8X": (number(24, 3) + 1) * (number(27, 3) + 1),
            "VP8 ": (number(26, 2) & 0x3FFF) * (number(28, 2) & 0x3FFF),
            "VP8L": ((number(21, 4) & 0x3FFF) + 1) * (((number(21, 4) // 2**14) & 0x3FFF) + 1),
        }
        of_webp = [
            tf.where(tf.strings.substr(padded, 12, 4) == kind, size, 0)
            for kind, size in webp.items()
        ]
        height = number(22, 4)  # of a BMP; 2**32 - height where the rows begin at the top
        sizes = {
            b"\x89PNG": number(16, 4, True) * tf.minimum(number(20, 4, True), 2**30),
            b"GIF8": number(6, 2) * number(8, 2),
            b"RIFF": tf.add_n(of_webp),
            b"BM": number(18, 4) * tf.minimum(height, 2**32 - height),
        }
        found = [
            tf.where(tf.strings.substr(padded, 0, len(start)) == start, size, 0)
            for start, size in sizes.items()
        ]
        return tf.add_n(found)

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, others)
