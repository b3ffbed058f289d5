"""RoIAlign (arXiv:1703.06870), aligned as detectron2 has it, on one map or on a pyramid.

A bin of the result is the mean of samples, bilinear between the centres of cells: 2 x 2 of them,
or as many as the bin is high and wide in cells, rounded up (`sampling_ratio` 0, detectron2's
default). A sample more than one cell beyond the outermost centres is 0; one nearer reads the
border. Boxes get no gradient. Source: torchvision/ops/roi_align.py.

There are two ways. Crops: `tf.image.crop_and_resize`, as fast as it can be on CPU and GPU; the
adaptive number of samples makes a dynamic shape of it. Products: per box, two matrices with the
weights of rows and columns, times the map. Exact too, static, and what XLA can compile; but each
box costs as much as the whole map.
"""

import tensorflow as tf

CANONICAL_PX, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's size is pooled on P4
CHUNK = 64  # boxes in one product, which bounds its memory


def roi_align(maps, boxes, size, sampling_ratio=0, products=False):
    """Pools boxes on one map.

    Args:
        maps: float32 NxhxwxC.
        boxes: float32 NxRx4, in cells: px / stride.
        size: S, bins along a side of the result.
        sampling_ratio: samples along a side of a bin, or 0 for the adaptive number.
        products: the way that XLA compiles.

    Returns:
        float32 NxRxSxSxC.
    """
    if products:
        return _products(maps, boxes, size, sampling_ratio)
    return _crops(_bordered(maps), boxes + 0.5, size, sampling_ratio)


def pool(maps, strides, boxes, size, sampling_ratio=0, products=False):
    """Pools boxes on the level of a pyramid that fits their size, or on the only map.

    Args:
        maps: list of float32 NxhxwxC, from the finest.
        strides: px between cells, of each.
        boxes: float32 NxRx4, px, within the image.
        size, sampling_ratio, products: as of `roi_align`.

    Returns:
        float32 NxRxSxSxC.
    """
    options = (size, sampling_ratio, products)
    if len(maps) == 1:
        return roi_align(maps[0], boxes / strides[0], *options)
    level = levels_of(boxes, len(maps))  # NxR
    if products:
        own = [tf.cast(level == i, tf.float32)[..., None, None, None] for i in range(len(maps))]
        return tf.add_n(
            [mask * roi_align(m, boxes / s, *options) for mask, m, s in zip(own, maps, strides)]
        )
    # All levels on one canvas, below each other: one call pools each box once.
    parts = [_bordered(m) for m in maps]
    heights, widths = zip(*[tf.unstack(tf.shape(m)[1:3]) for m in parts])
    top = tf.gather(tf.cumsum(tf.stack(heights), exclusive=True), level)  # NxR
    top = tf.cast(top, tf.float32)[..., None]
    canvas = [
        tf.pad(m, [[0, 0], [0, 0], [0, widths[0] - w], [0, 0]]) for m, w in zip(parts, widths)
    ]
    boxes /= tf.gather(tf.constant(strides, tf.float32), level)[..., None]
    shift = tf.concat([tf.zeros_like(top), top] * 2, axis=-1)
    return _crops(tf.concat(canvas, axis=1), boxes + shift + 0.5, size, sampling_ratio)


def levels_of(boxes, number):
    """The level that pools each box, 0 for P2: ...x4 to int32 ....

    Source: arXiv:1612.03144, equation 1.
    """
    side = tf.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    level = CANONICAL_LEVEL + tf.math.log(side / CANONICAL_PX + 1e-8) / tf.math.log(2.0)
    return tf.clip_by_value(tf.cast(tf.floor(level), tf.int32) - 2, 0, number - 1)


def _bordered(maps):
    """With the border cells twice, so that reading between them reads the border."""
    return tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")


def _crops(canvas, boxes, size, ratio):
    """Pools boxes, NxRx4 in cells of the canvas: position i is the centre of cell i."""
    n, r = boxes.shape[:2]
    image = tf.repeat(tf.range(n), r)  # M = n * r
    flat = tf.reshape(boxes, [-1, 2, 2])  # Mx2x2: corner, axis
    start, bins = flat[:, 0], (flat[:, 1] - flat[:, 0]) / size  # Mx2
    if ratio:
        step = bins / ratio
        found = _crop(canvas, start + step / 2, step, image, size * ratio)
        pooled = tf.nn.avg_pool2d(found, ratio, ratio, "VALID")
    else:
        # A crop for each place within the bins: it has this sample of all bins.
        number = tf.cast(tf.maximum(tf.math.ceil(bins), 0), tf.int32)  # Mx2: columns, rows
        count = number[:, 0] * number[:, 1]
        box = tf.repeat(tf.range(n * r), count)  # one number a crop
        place = tf.range(tf.size(box)) - tf.gather(tf.cumsum(count, exclusive=True), box)
        columns = tf.gather(number[:, 0], box)
        place = tf.stack([place % columns, place // columns], axis=1)
        number, step = tf.gather(number, box), tf.gather(bins, box)
        offset = (tf.cast(place, tf.float32) + 0.5) / tf.cast(number, tf.float32) * step
        found = _crop(canvas, tf.gather(start, box) + offset, step, tf.gather(image, box), size)
        pooled = tf.math.unsorted_segment_mean(found, box, n * r)
    return tf.reshape(pooled, [n, r, size, size, canvas.shape[-1]])


def _crop(canvas, first, step, image, size):
    """size x size samples from `first` on, `step` apart, Mx2 in x and y; 0 beyond the canvas."""
    last_cell = tf.cast(tf.shape(canvas)[2:0:-1] - 1, tf.float32)  # x, y
    corners = tf.stack([first, first + step * (size - 1)], axis=1) / last_cell  # Mx2x2
    corners = tf.stop_gradient(tf.reshape(corners[..., ::-1], [-1, 4]))  # y1, x1, y2, x2
    return tf.image.crop_and_resize(canvas, corners, image, [size, size])


def _products(maps, boxes, size, ratio):
    boxes = tf.stop_gradient(boxes)
    height, width = tf.unstack(tf.shape(maps)[1:3])
    rows = _weights(boxes[..., 1], boxes[..., 3], height, size, ratio)  # NxRxSxh
    columns = _weights(boxes[..., 0], boxes[..., 2], width, size, ratio)  # NxRxSxw
    parts = []
    for i in range(0, boxes.shape[1], CHUNK):
        part = tf.einsum("nrph,nhwc->nrpwc", rows[:, i : i + CHUNK], maps)
        parts.append(tf.einsum("nrqw,nrpwc->nrpqc", columns[:, i : i + CHUNK], part))
    return tf.concat(parts, axis=1)


def _weights(start, end, cells, size, ratio):
    """Weights of cells in the bins between start and end, along one axis: NxR to NxRxSxcells."""
    bins = (end - start)[..., None, None] / size  # NxRx1x1
    number = tf.fill(tf.shape(bins), float(ratio)) if ratio else tf.maximum(tf.math.ceil(bins), 0)
    first = start[..., None, None] - 0.5 + bins * tf.range(size, dtype=tf.float32)[:, None]
    limit = tf.cast(cells, tf.float32)
    cell = tf.range(limit)

    def add(i, total):
        at = first + bins * tf.math.divide_no_nan(i + 0.5, number)  # NxRxSx1
        counted = (i < number) & (at >= -1) & (at <= limit)
        distance = tf.abs(tf.clip_by_value(at, 0, limit - 1) - cell)  # NxRxSxcells
        return i + 1, total + tf.where(counted, tf.maximum(1 - distance, 0), 0)

    shape = tf.concat([tf.shape(first)[:3], [cells]], axis=0)
    most = tf.reduce_max(number)
    _, total = tf.while_loop(lambda i, _: i < most, add, (0.0, tf.zeros(shape)))
    return tf.math.divide_no_nan(total, number)
