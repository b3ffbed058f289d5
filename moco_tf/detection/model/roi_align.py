"""RoIAlign: pools boxes on one feature map or on a pyramid.

A bin of the result is the mean of samples, bilinear between the centers of cells. Each bin has
`sampling_ratio` x `sampling_ratio` samples; with 0 (detectron2's default) it has as many as it is
high and wide in cells, rounded up. A sample more than one cell beyond the outermost centers is 0; a
nearer one reads the border. Boxes get no gradient.

There are two implementations. Crops call `tf.image.crop_and_resize`: fast on CPU and GPU, but the
adaptive number of samples makes shapes dynamic. Matrix products (`static_shapes`) multiply the map
by the weights of rows and columns of each box: exact too and compilable by XLA, but each box costs
as much as the whole map.

Boxes are aligned by default (detectron2's ROIAlignV2): cell i covers [i, i + 1), so its center is
at i + 0.5. Otherwise (ROIAlign) the center is at i, and a box has sides of at least one cell.

Source: arXiv:1703.06870; torchvision/ops/roi_align.py; detectron2/modeling/poolers.py.
"""

from collections.abc import Sequence

import tensorflow as tf

CANONICAL_PX, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's size is pooled on P4
CHUNK = 64  # boxes in one product, which bounds its memory


def roi_align(
    maps: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    sampling_ratio: int = 0,
    static_shapes: bool = False,
    aligned: bool = True,
) -> tf.Tensor:
    """Pools boxes on one map.

    Args:
        maps: float32 NxhxwxC.
        boxes: float32 NxRx4, in cells: px / stride.
        size: S, bins along a side of the result.
        sampling_ratio: samples along a side of a bin, or 0 for the adaptive number.
        static_shapes: pools by matrix products, which XLA can compile and whose gradients are
            deterministic on a GPU.
        aligned: whether the center of cell i is at i + 0.5, not at i.

    Returns:
        float32 NxRxSxSxC.
    """
    positions = _positions(boxes, aligned)
    if static_shapes:
        return _by_products(maps, positions, size, sampling_ratio)
    return _by_crops(_bordered(maps), positions + 1, size, sampling_ratio)


def pool(
    maps: Sequence[tf.Tensor],
    strides: Sequence[int],
    boxes: tf.Tensor,
    size: int,
    sampling_ratio: int = 0,
    static_shapes: bool = False,
    aligned: bool = True,
) -> tf.Tensor:
    """Pools each box on the level of a pyramid that fits its size, or on the only map.

    Args:
        maps: float32 NxhxwxC of each level, from the finest.
        strides: px between the cells of each level.
        boxes: float32 NxRx4, px, within the image.
        size: S, bins along a side of the result.
        sampling_ratio: samples along a side of a bin, or 0 for the adaptive number.
        static_shapes: see `roi_align`.
        aligned: see `roi_align`.

    Returns:
        float32 NxRxSxSxC.
    """
    if len(maps) == 1:
        in_cells = boxes / strides[0]
        return roi_align(maps[0], in_cells, size, sampling_ratio, static_shapes, aligned)
    level = levels_of(boxes, len(maps))  # NxR
    if static_shapes:
        pooled = []
        for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            is_on_level = tf.cast(level == i, tf.float32)[..., None, None, None]
            positions = _positions(boxes / stride, aligned)
            pooled.append(is_on_level * _by_products(x, positions, size, sampling_ratio))
        return tf.add_n(pooled)
    # All levels lie on one canvas, below each other, so that one call pools each box once.
    bordered = [_bordered(x) for x in maps]
    sizes = [tf.unstack(tf.shape(x)[1:3]) for x in bordered]
    tops = tf.cumsum(tf.stack([height for height, _ in sizes]), exclusive=True)
    top = tf.cast(tf.gather(tops, level), tf.float32)[..., None]  # NxRx1
    _, full_width = sizes[0]
    canvas = [
        tf.pad(x, [[0, 0], [0, 0], [0, full_width - width], [0, 0]])
        for x, (_, width) in zip(bordered, sizes, strict=True)
    ]
    boxes /= tf.gather(tf.constant(strides, tf.float32), level)[..., None]
    shift = tf.concat([tf.zeros_like(top), top] * 2, axis=-1)
    positions = _positions(boxes, aligned) + shift + 1
    return _by_crops(tf.concat(canvas, axis=1), positions, size, sampling_ratio)


def levels_of(boxes: tf.Tensor, num_levels: int) -> tf.Tensor:
    """The level that pools each box, 0 for P2: ...x4 to int32 ....

    Source: arXiv:1612.03144, equation 1.
    """
    side = tf.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    level = CANONICAL_LEVEL + tf.math.log(side / CANONICAL_PX + 1e-8) / tf.math.log(2.0)
    return tf.clip_by_value(tf.cast(tf.floor(level), tf.int32) - 2, 0, num_levels - 1)


def _positions(boxes, aligned):
    """Corners of boxes in steps between the centers of cells, of which the first is at 0."""
    if aligned:
        return boxes - 0.5
    near_corner, far_corner = tf.split(boxes, 2, axis=-1)
    return tf.concat([near_corner, tf.maximum(far_corner, near_corner + 1)], axis=-1)


# Crops -------------------------------------------------------------------------------------------


def _bordered(maps):
    """Maps with their border cells twice, so that a sample between the two reads the border."""
    return tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")


def _by_crops(canvas, boxes, size, ratio):
    """Pools boxes, NxRx4 in cells of the canvas: position i is the center of cell i."""
    n, r = boxes.shape[:2]
    image = tf.repeat(tf.range(n), r)  # M = n * r
    flat = tf.reshape(boxes, [-1, 2, 2])  # Mx2x2: corner, axis
    start = flat[:, 0]  # Mx2
    bins = (flat[:, 1] - flat[:, 0]) / size  # Mx2
    if ratio:
        step = bins / ratio
        samples = _crop(canvas, start + step / 2, step, image, size * ratio)
        pooled = tf.nn.avg_pool2d(samples, ratio, ratio, "VALID")
    else:
        # One crop for each place within the bins: it holds this sample of all bins.
        number = tf.cast(tf.maximum(tf.math.ceil(bins), 0), tf.int32)  # Mx2: columns, rows
        count = number[:, 0] * number[:, 1]
        box = tf.repeat(tf.range(n * r), count)  # the box of each crop
        place = tf.range(tf.size(box)) - tf.gather(tf.cumsum(count, exclusive=True), box)
        columns = tf.gather(number[:, 0], box)
        place = tf.stack([place % columns, place // columns], axis=1)
        number = tf.gather(number, box)
        step = tf.gather(bins, box)
        offset = (tf.cast(place, tf.float32) + 0.5) / tf.cast(number, tf.float32) * step
        first = tf.gather(start, box) + offset
        samples = _crop(canvas, first, step, tf.gather(image, box), size)
        pooled = tf.math.unsorted_segment_mean(samples, box, n * r)
    return tf.reshape(pooled, [n, r, size, size, canvas.shape[-1]])


def _crop(canvas, first, step, image, size):
    """size x size samples from `first` on, `step` apart, Mx2 in x and y; 0 beyond the canvas."""
    last_cell = tf.cast(tf.shape(canvas)[2:0:-1] - 1, tf.float32)  # x, y
    corners = tf.stack([first, first + step * (size - 1)], axis=1) / last_cell  # Mx2x2
    corners = tf.stop_gradient(tf.reshape(corners[..., ::-1], [-1, 4]))  # y1, x1, y2, x2
    return tf.image.crop_and_resize(canvas, corners, image, [size, size])


# Matrix products ---------------------------------------------------------------------------------


def _by_products(maps, boxes, size, ratio):
    """Pools boxes, NxRx4 as returned by `_positions`, by the weights of rows and columns."""
    boxes = tf.stop_gradient(boxes)
    height, width = tf.unstack(tf.shape(maps)[1:3])
    rows = _weights(boxes[..., 1], boxes[..., 3], height, size, ratio)  # NxRxSxh
    columns = _weights(boxes[..., 0], boxes[..., 2], width, size, ratio)  # NxRxSxw
    pooled = []
    for i in range(0, boxes.shape[1], CHUNK):
        x = tf.einsum("nrph,nhwc->nrpwc", rows[:, i : i + CHUNK], maps)
        pooled.append(tf.einsum("nrqw,nrpwc->nrpqc", columns[:, i : i + CHUNK], x))
    return tf.concat(pooled, axis=1)


def _weights(start, end, cells, size, ratio):
    """Weights of cells in the bins between start and end, along one axis: NxR to NxRxSxcells."""
    bins = (end - start)[..., None, None] / size  # NxRx1x1
    number = tf.fill(tf.shape(bins), float(ratio)) if ratio else tf.maximum(tf.math.ceil(bins), 0)
    first = start[..., None, None] + bins * tf.range(size, dtype=tf.float32)[:, None]
    limit = tf.cast(cells, tf.float32)
    cell = tf.range(limit)

    def add_sample(i, total):
        position = first + bins * tf.math.divide_no_nan(i + 0.5, number)  # NxRxSx1
        is_counted = (i < number) & (position >= -1) & (position <= limit)
        distance = tf.abs(tf.clip_by_value(position, 0, limit - 1) - cell)  # NxRxSxcells
        return i + 1, total + tf.where(is_counted, tf.maximum(1 - distance, 0), 0)

    shape = tf.concat([tf.shape(first)[:3], [cells]], axis=0)
    most = tf.reduce_max(number)
    _, total = tf.while_loop(lambda i, _: i < most, add_sample, (0.0, tf.zeros(shape)))
    return tf.math.divide_no_nan(total, number)
