"""Pure functions on images, in torchvision's definitions and units.

Batched functions take float32 NxHxWx3 in [0, 1] and one parameter per image, and
run on any device, inside and outside XLA.

Source: torchvision.transforms.functional and PIL.
"""

import math

import tensorflow as tf

GRAY_PALETTE = b"".join(bytes([i, i, i, 0]) for i in range(256))


def decode(encoded):
    """Decodes JPEG, PNG, WebP, BMP or GIF bytes (first frame) to uint8 HxWx3.

    Grayscale is repeated, CMYK converted, 16 bits cut to 8, transparency dropped.

    Raises:
        InvalidArgumentError: for other bytes, and for two kinds that TensorFlow 2.21 misreads:
            animated WebP (it writes past its buffer) and BMP with a palette.
    """

    def other_format():
        with tf.control_dependencies([_refuse_misread(encoded)]):
            image = tf.io.decode_image(tf.identity(encoded), expand_animations=False)
        image = tf.cond(tf.shape(image)[-1] < 3, lambda: image[..., :1], lambda: image[..., :3])
        return tf.broadcast_to(image, tf.concat([tf.shape(image)[:2], [3]], axis=0))

    image = tf.cond(
        tf.io.is_jpeg(encoded),
        # The accurate inverse transform is the one that PIL uses.
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        other_format,
    )
    return tf.ensure_shape(image, [None, None, 3])


def _refuse_misread(encoded):
    """Raises for the formats that `tf.io.decode_image` accepts but gets wrong."""
    padded = tf.strings.join([encoded, "\0" * 1280])  # short files are the decoder's to refuse

    def byte(position):
        return tf.cast(
            tf.io.decode_raw(tf.strings.substr(padded, position, 1), tf.uint8)[0], tf.int32
        )

    webp_animated = (tf.strings.substr(padded, 8, 8) == "WEBPVP8X") & (byte(20) & 2 != 0)
    # Up to eight bits a pixel are indices into a palette, harmless if that is the gray ramp.
    palette = tf.strings.substr(padded, 14 + byte(14), len(GRAY_PALETTE))
    indexed = (tf.strings.substr(padded, 0, 2) == "BM") & (byte(28) <= 8)
    bmp_palette = indexed & (palette != GRAY_PALETTE)
    return tf.debugging.Assert(
        ~(webp_animated | bmp_palette), ["Animated WebP and BMP with a palette are not supported."]
    )


def random_crop_box(u, height, width, scale, ratio):
    """The box of torchvision's RandomResizedCrop: ten tries, else the central crop.

    Args:
        u: float32, 22 uniform numbers in [0, 1): ten areas, ten ratios, the position.
        height, width: size of the image, px.
        scale: range of the share of the area.
        ratio: range of width / height, drawn log-uniformly.

    Returns:
        int32 `(top, left, height, width)`, px.
    """
    full_h, full_w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = full_h * full_w * (scale[0] + u[:10] * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + u[10:20] * (high - low))
    w = tf.round(tf.sqrt(area * aspect))
    h = tf.round(tf.sqrt(area / aspect))
    fits = (w > 0) & (w <= full_w) & (h > 0) & (h <= full_h)
    first = tf.argmax(tf.cast(fits, tf.int32))

    aspect = full_w / full_h
    central_w = tf.where(aspect > ratio[1], tf.round(full_h * ratio[1]), full_w)
    central_h = tf.where(aspect < ratio[0], tf.round(full_w / ratio[0]), full_h)
    any_fits = tf.reduce_any(fits)
    w = tf.where(any_fits, w[first], central_w)
    h = tf.where(any_fits, h[first], central_h)
    top = tf.where(any_fits, tf.floor(u[20] * (full_h - h + 1)), tf.floor((full_h - h) / 2))
    left = tf.where(any_fits, tf.floor(u[21] * (full_w - w + 1)), tf.floor((full_w - w) / 2))
    return tuple(tf.cast(x, tf.int32) for x in (top, left, h, w))


def crop_and_resize(image, box, size):
    """Crops `box` (top, left, height, width, px) and resizes it, bilinear and antialiased.

    Args:
        image: uint8 HxWx3.
        box: int32.
        size: px, or a pair of height and width.

    Returns:
        uint8 size x size x 3.
    """
    top, left, height, width = box
    crop = image[top : top + height, left : left + width]
    return _resize(crop, [size, size])


def resize_short_side(image, size):
    """Resizes uint8 HxWx3 so that its shorter side is `size` px (torchvision's Resize)."""
    height, width = tf.unstack(tf.shape(image)[:2])
    short = tf.minimum(height, width)
    return _resize(image, [size * height // short, size * width // short])


def center_crop(image, size):
    """The central size x size px of an image at least as large."""
    height, width = tf.unstack(tf.shape(image)[:2])
    top = tf.cast(tf.round(tf.cast(height - size, tf.float32) / 2), tf.int32)
    left = tf.cast(tf.round(tf.cast(width - size, tf.float32) / 2), tf.int32)
    return tf.ensure_shape(image[top : top + size, left : left + size], [size, size, 3])


def _resize(image, size):
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def luma(x):
    """ITU-R 601 luminance, PIL's "L": NxHxWx1."""
    return tf.reduce_sum(x * tf.constant([0.299, 0.587, 0.114]), axis=-1, keepdims=True)


def grayscale(x):
    """Luminance in all three channels."""
    return tf.broadcast_to(luma(x), tf.shape(x))


def brightness(x, factor):
    """Multiplies by `factor` (N, >= 0), clipped to [0, 1]."""
    return tf.clip_by_value(x * _per_image(factor), 0, 1)


def contrast(x, factor):
    """Blends with the image's mean luminance; 1 leaves it unchanged."""
    return _blend(x, tf.reduce_mean(luma(x), axis=[1, 2, 3], keepdims=True), factor)


def saturation(x, factor):
    """Blends with the image's own grayscale; 1 leaves it unchanged, 0 is gray."""
    return _blend(x, luma(x), factor)


def hue(x, shift):
    """Turns the hue by `shift` (N) of the circle, in HSV as PIL does."""
    r, g, b = tf.unstack(x, axis=-1)
    value = tf.maximum(tf.maximum(r, g), b)
    chroma = value - tf.minimum(tf.minimum(r, g), b)
    # Tiny chroma would divide by a denormal: such a pixel is gray.
    gray = chroma < 1e-6
    safe = tf.where(gray, 1.0, chroma)
    sixth = tf.where(
        value == r, (g - b) / safe, tf.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )
    sixth = tf.where(gray, 0.0, sixth) + 6 * _per_image(shift)[..., 0]

    def channel(n):
        k = tf.math.floormod(n + sixth, 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4 - k), 0, 1)

    return tf.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)


JITTER_OPS = (brightness, contrast, saturation, hue)


def color_jitter(x, factors, order):
    """Applies the four `JITTER_OPS`, each once, in an order of each image's own.

    Args:
        x: float32 NxHxWx3 in [0, 1].
        factors: Nx4, the parameters of the ops.
        order: int32 Nx4, the op at each position.
    """
    for position in range(4):
        now = order[:, position]
        if x.shape[0] == 1:  # one image: run only the op that is due
            due = [lambda op=op, i=i, x=x: op(x, factors[:, i]) for i, op in enumerate(JITTER_OPS)]
            x = tf.ensure_shape(tf.switch_case(now[0], due), x.shape)
        else:
            results = [op(x, factors[:, i]) for i, op in enumerate(JITTER_OPS)]
            for i, result in enumerate(results):
                x = tf.where(_per_image(now) == i, result, x)
    return x


def gaussian_blur(x, sigma, radius=6):
    """Blurs by a Gaussian of `sigma` px (N), edges repeated as PIL does.

    Args:
        x: float32 NxHxWx3.
        sigma: float32 N, > 0.
        radius: taps on each side, px; three times the largest sigma.

    PIL's own is three box blurs, which this matches to under 1/255 on average.
    """
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-0.5 * (offsets / sigma[:, None]) ** 2)  # Nx(2*radius+1)
    taps /= tf.reduce_sum(taps, axis=1, keepdims=True)
    for axis in (1, 2):
        length = x.shape[axis]
        rows = tf.clip_by_value(tf.range(-radius, length + radius), 0, length - 1)
        padded = tf.gather(x, rows, axis=axis)
        shifts = (
            padded[:, i : i + length] if axis == 1 else padded[:, :, i : i + length]
            for i in range(2 * radius + 1)
        )
        x = tf.add_n([_per_image(taps[:, i]) * shifted for i, shifted in enumerate(shifts)])
    return x


def normalize(x, mean, std):
    """Subtracts the channels' mean and divides by their standard deviation."""
    return (x - tf.constant(mean)) / tf.constant(std)


def _blend(x, other, factor):
    factor = _per_image(factor)
    return tf.clip_by_value(factor * x + (1 - factor) * other, 0, 1)


def _per_image(parameter):
    return tf.reshape(parameter, [-1, 1, 1, 1])
