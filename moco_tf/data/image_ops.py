"""Image decoding, cropping, resizing, color and blur, in torchvision's definitions and units.

All functions are pure. Geometry takes one uint8 image HxWx3. Color and blur take a batch of planes,
float32 Nx3xHxW in [0, 1], and one parameter for each image. They run on any device, inside and
outside XLA. Planes keep the values of one color side by side, which suits vector instructions.

Source: torchvision.transforms.functional and PIL.
"""

import functools
import math

import tensorflow as tf

from moco_tf.data import image_headers

WHITE = 2**16 - 1  # largest value of a 16-bit image


def decode(
    encoded: tf.Tensor, max_pixels: int = image_headers.MAX_PIXELS, white: int = WHITE
) -> tf.Tensor:
    """Decodes JPEG, PNG, WebP, BMP or GIF bytes (first frame) to uint8 HxWx3.

    Grayscale is repeated, CMYK converted, 16 bits cut to 8, transparency dropped. Pixels are as
    they are stored: an EXIF orientation is ignored, as PIL and torchvision ignore it.

    Args:
        encoded: bytes of an image file, string scalar.
        max_pixels: largest width times height.
        white: value of 16-bit PNG files that becomes 255, such as 4095 of 12 bits in 16; larger
            values become 255, too.

    Raises:
        InvalidArgumentError: for other bytes, and for images that `image_headers.refuse` refuses.
    """
    return _decoder(max_pixels, white)(tf.convert_to_tensor(encoded))


@functools.cache
def _decoder(max_pixels, white):
    """`decode` with these options. Traced once: each pipeline has several copies of its call."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(
        lambda encoded: _decode(encoded, max_pixels, white),
        input_signature=signature,
        autograph=False,
    )


def _decode(encoded, max_pixels, white):
    def scaled():
        values = tf.cast(tf.io.decode_png(tf.identity(encoded), dtype=tf.uint16), tf.float32)
        return tf.cast(tf.round(tf.minimum(values * (255 / white), 255)), tf.uint8)

    def as_stored():
        return tf.io.decode_image(tf.identity(encoded), expand_animations=False)

    def other_format():
        if white == WHITE:
            image = as_stored()
        else:
            image = tf.cond(image_headers.is_16_bit(encoded), scaled, as_stored)
        image = tf.cond(tf.shape(image)[-1] < 3, lambda: image[..., :1], lambda: image[..., :3])
        return tf.broadcast_to(image, tf.concat([tf.shape(image)[:2], [3]], axis=0))

    with tf.control_dependencies([image_headers.refuse(encoded, max_pixels)]):
        image = tf.cond(
            tf.io.is_jpeg(encoded),
            # The accurate inverse transform is the one that PIL uses.
            lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
            other_format,
        )
    return tf.ensure_shape(image, [None, None, 3])


def random_crop_box(
    u: tf.Tensor, height, width, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple:
    """The box of torchvision's RandomResizedCrop: ten tries, else the central crop.

    Args:
        u: float32, 22 uniform numbers in [0, 1): ten areas, ten ratios, the position.
        height: height of the image, px.
        width: width of the image, px.
        scale: lowest and highest share of the area.
        ratio: lowest and highest width / height, drawn log-uniformly.

    Returns:
        int32 `(top, left, height, width)`, px.
    """
    full_h, full_w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    areas, ratios, position = tf.split(u, [10, 10, 2])
    down, right = tf.unstack(position)
    area = full_h * full_w * (scale[0] + areas * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + ratios * (high - low))
    w = tf.round(tf.sqrt(area * aspect))
    h = tf.round(tf.sqrt(area / aspect))
    fits = (w > 0) & (w <= full_w) & (h > 0) & (h <= full_h)
    first = tf.argmax(tf.cast(fits, tf.int32))

    aspect = full_w / full_h
    central_w = tf.where(aspect > ratio[1], tf.round(full_h * ratio[1]), full_w)
    central_h = tf.where(aspect < ratio[0], tf.round(full_w / ratio[0]), full_h)
    any_fits = tf.reduce_any(fits)
    w = tf.where(any_fits, tf.gather(w, first), central_w)
    h = tf.where(any_fits, tf.gather(h, first), central_h)
    top = tf.where(any_fits, tf.floor(down * (full_h - h + 1)), tf.floor((full_h - h) / 2))
    left = tf.where(any_fits, tf.floor(right * (full_w - w + 1)), tf.floor((full_w - w) / 2))
    return tuple(tf.cast(x, tf.int32) for x in (top, left, h, w))


def crop_and_resize(image: tf.Tensor, box: tuple, size: int) -> tf.Tensor:
    """Crops a box and resizes it to a square, bilinear and antialiased.

    Args:
        image: uint8 HxWx3.
        box: int32 top, left, height and width, px.
        size: side of the result, px.

    Returns:
        uint8 size x size x 3.
    """
    top, left, height, width = box
    return _resize(image[top : top + height, left : left + width], size, size, 0.0, 0.0, size)


def resize_and_center_crop(image: tf.Tensor, resize: int, size: int) -> tf.Tensor:
    """Resizes the short side, then crops the center, as torchvision's Resize and CenterCrop.

    Only the crop is computed, so a long thin image takes no more memory than another.

    Args:
        image: uint8 HxWx3.
        resize: short side of the resized image, px.
        size: side of the crop, px, at most `resize`.

    Returns:
        uint8 size x size x 3.
    """
    shape = tf.shape(image)[:2]
    resized = resize * shape // tf.reduce_min(shape)
    start = tf.round(tf.cast(resized - size, tf.float32) / 2)
    crop = _resize(image, *tf.unstack(resized), *tf.unstack(start), size)
    return tf.ensure_shape(crop, [size, size, 3])


def _resize(image, height, width, top, left, size):
    """A window of `tf.image.resize(antialias=True)`, at 2.5 times its speed.

    Resizes uint8 HxWx3 to `height` x `width` and returns size x size px from (top, left) on.

    The op is fast along the columns of an image one pixel wide, so each pass makes one: first of
    the rows, then, transposed, of the columns.
    """
    h, w, _ = tf.unstack(tf.shape(image))
    x = _resize_rows(tf.reshape(image, [h, w * 3]), height, top, size)
    x = tf.transpose(tf.reshape(x, [size, w, 3]), [1, 0, 2])
    x = _resize_rows(tf.reshape(x, [w, size * 3]), width, left, size)
    x = tf.transpose(tf.reshape(x, [size, size, 3]), [1, 0, 2])
    return tf.cast(x + 0.5, tf.uint8)  # weights are positive and add up to 1: no clipping


def _resize_rows(x, length, start, size):
    """Resizes along the first axis to `length` rows and returns `size` of them from `start` on."""
    rows, _ = tf.unstack(tf.shape(x))
    scale = tf.cast(length, tf.float32) / tf.cast(rows, tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=x[None, :, None],
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([-start, 0.0]),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.squeeze(resized, [0, 2])


def to_planes(images: tf.Tensor) -> tf.Tensor:
    """uint8 NxHxWx3 to float32 Nx3xHxW in [0, 1]."""
    return tf.transpose(tf.cast(images, tf.float32) / 255, [0, 3, 1, 2])


def from_planes(x: tf.Tensor) -> tf.Tensor:
    """Nx3xHxW to NxHxWx3."""
    return tf.transpose(x, [0, 2, 3, 1])


def luma(x: tf.Tensor) -> tf.Tensor:
    """ITU-R 601 luminance, PIL's "L": Nx1xHxW."""
    r, g, b = tf.split(x, 3, axis=1)
    return 0.299 * r + 0.587 * g + 0.114 * b


def grayscale(x: tf.Tensor) -> tf.Tensor:
    """Luminance in all three channels."""
    return tf.repeat(luma(x), 3, axis=1)


def brightness(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies by `factor` (N, >= 0), clipped to [0, 1]."""
    return tf.clip_by_value(x * _per_image(factor), 0, 1)


def contrast(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the image's mean luminance by `factor` (N); 1 leaves it unchanged."""
    return _blend(x, tf.reduce_mean(luma(x), axis=[1, 2, 3], keepdims=True), factor)


def saturation(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the grayscale image by `factor` (N); 1 leaves it unchanged, 0 is gray."""
    return _blend(x, luma(x), factor)


def hue(x: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Turns the hue by `shift` (N) of the circle, in HSV as PIL does."""
    r, g, b = tf.split(x, 3, axis=1)
    value = tf.maximum(tf.maximum(r, g), b)
    chroma = value - tf.minimum(tf.minimum(r, g), b)
    # A pixel with tiny chroma counts as gray, to avoid division by a denormal number.
    gray = chroma < 1e-6
    scale = 1 / tf.where(gray, 1.0, chroma)
    sixth = tf.where(
        value == r, (g - b) * scale, tf.where(value == g, 2 + (b - r) * scale, 4 + (r - g) * scale)
    )
    sixth = tf.where(gray, 0.0, sixth) + 6 * _per_image(shift)

    def channel(n):
        k = n + sixth
        k -= 6 * tf.floor(k / 6)  # ten times as fast as floormod under XLA on CPU
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4 - k), 0, 1)

    return tf.concat([channel(5.0), channel(3.0), channel(1.0)], axis=1)


JITTER_OPS = (brightness, contrast, saturation, hue)


def color_jitter(x: tf.Tensor, factors: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Applies the four `JITTER_OPS`, each once, in a different order for each image.

    Args:
        x: float32 Nx3xHxW in [0, 1].
        factors: Nx4, the parameters of the ops.
        order: int32 Nx4, the op at each position.
    """

    def apply(position, x):
        op_numbers = order[:, position]
        ops = [lambda op=op, i=i: op(x, factors[:, i]) for i, op in enumerate(JITTER_OPS)]
        if x.shape[0] == 1:  # one image: run only the op of this position
            return position + 1, tf.switch_case(op_numbers[0], ops)
        results = [tf.where(_per_image(op_numbers) == i, op(), 0) for i, op in enumerate(ops)]
        return position + 1, tf.add_n(results)

    # A loop, not four copies of the ops: XLA compiles it twenty times as fast.
    return tf.while_loop(lambda position, _: position < 4, apply, (0, x))[1]


def gaussian_blur(x: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Blurs by a Gaussian, with repeated edges as in PIL.

    PIL approximates the Gaussian by three box blurs; the mean difference is under 1/255.

    Args:
        x: float32 Nx3xHxW.
        sigma: float32 N, > 0, px.
        radius: taps on each side, px; three times the largest sigma.
    """
    offsets = tf.range(radius + 1, dtype=tf.float32)
    taps = tf.exp(-0.5 * (offsets / sigma[:, None]) ** 2)  # Nx(radius+1), one side
    taps /= 2 * tf.reduce_sum(taps, axis=1, keepdims=True) - taps[:, :1]
    for axis in (2, 3):
        length = x.shape[axis]
        first = tf.repeat(tf.gather(x, [0], axis=axis), radius, axis=axis)
        last = tf.repeat(tf.gather(x, [length - 1], axis=axis), radius, axis=axis)
        padded = tf.concat([first, x, last], axis)
        shifts = [
            padded[:, :, i : i + length] if axis == 2 else padded[:, :, :, i : i + length]
            for i in range(2 * radius + 1)
        ]
        x = _per_image(taps[:, 0]) * x
        for i in range(1, radius + 1):
            x += _per_image(taps[:, i]) * (shifts[radius - i] + shifts[radius + i])
    return x


def normalize(x: tf.Tensor, mean: tuple, std: tuple) -> tf.Tensor:
    """Subtracts the channels' mean and divides by their standard deviation: NxHxWx3."""
    return (x - tf.constant(mean)) / tf.constant(std)


def _blend(x, other, factor):
    factor = _per_image(factor)
    return tf.clip_by_value(factor * x + (1 - factor) * other, 0, 1)


def _per_image(parameter):
    return tf.reshape(parameter, [-1, 1, 1, 1])
