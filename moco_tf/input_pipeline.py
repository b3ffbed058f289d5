"""Source and recipe to batches of two views, as a pure function of (seed, step).

Slots number the samples of a run: slot = step * global batch + row. Which image fills a
slot, and how it is augmented, depends on the seed and the slot alone, so that a run
resumes at any step and means the same on any number of hosts and replicas.
"""

import functools

import tensorflow as tf

from moco_tf import bad_images
from moco_tf.datasets import Stream
from moco_tf.random_key import random_key

# Nothing here needs AutoGraph, which multiplies the time to build a data set.
plain = tf.autograph.experimental.do_not_convert


def training_dataset(
    source,
    recipe,
    layout,
    *,
    host=0,
    image_size_px=224,
    seed=0,
    start_step=0,
    shuffle=True,
    augment_on="host",
    jit_compile=True,
    shuffle_buffer=10_000,
    shard_files=False,
    with_index=False,
):
    """Batches of two views for one host, forever.

    Args:
        source: `datasets.Source` or `Stream`.
        recipe: `recipes.recipe.Recipe`.
        layout: `Layout`.
        host: which of the layout's hosts this one is.
        image_size_px: side of the views.
        seed: int, of the run.
        start_step: first step to yield.
        shuffle: shuffle-BN; permutes the key views if the layout says so.
        augment_on: "host", or "device": colours and blur are then left to the recipe's
            `photometric`, and views are uint8.
        jit_compile: colours and blur on the host are compiled by XLA: the same pixels at several
            times the speed, after a second or two of compilation.
        shuffle_buffer: records, of a `Stream`.
        shard_files: each host reads files of its own instead of rows of one global order: less
            reading, but then the order depends on the number of hosts.
        with_index: also yield the images' numbers in the source, which a `Stream` does not have.

    Returns:
        `tf.data.Dataset`, one element per replica of this host in turn, n = replica_rows:
            x_q, x_k: float32 (host) or uint8 (device) nxSxSx3.
            row: int32 n, the global row of each query; order: likewise of each key view (only if
                permuted).
            draws_q, draws_k: float32 n x recipe.num_draws (device only).
            ok: bool n, false where an undecodable image was replaced by the next good one of its
                BN group, or by black if the whole batch has none.
            name: uint8 n x 120, the image's name, zero-padded at the end (its last 120 bytes).
            index: int64 n, the number of the image that the queries show: where an undecodable
                one was replaced, of the one that stands in for it (only `with_index`).

    Raises:
        ValueError: if the source has fewer images than one batch, or lacks what is asked for.
    """
    if with_index:
        require_index(source)
    if source.num_examples < layout.batch:
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{source.num_examples} images, batch {layout.batch}. Lower the batch size."
        )

    @plain
    def views(key, slot):
        image, result = source.image(key), {"index": key} if with_index else {}
        for view, letter in enumerate("qk"):
            u = recipe.draw(seed, slot, view)
            result[f"x_{letter}"] = recipe.geometry(image, u, image_size_px)
            result[f"draws_{letter}"] = u
        return result

    data = examples(source, layout, host, seed, start_step, shuffle_buffer, shard_files)
    chunks = layout.host_rows // _chunk_rows(layout)
    data = joined(bad_images.mark(data, views, source.name), chunks)
    permute = shuffle and layout.shuffling == "input"
    steps = tf.data.Dataset.range(start_step, tf.int64.max)

    @plain
    def finish(step, batch):
        batch = bad_images.replace(batch, views, layout.group_rows)
        batch["name"] = bad_images.encode_names(batch["name"])
        return _order(batch, layout, host, permute and (seed, step))

    data = tf.data.Dataset.zip(steps, data).map(finish)
    local = layout.replicas // layout.hosts
    if augment_on == "host":
        data = split(data, chunks).map(_colour(recipe, jit_compile), tf.data.AUTOTUNE)
        data = joined(data, chunks // local)
    else:
        data = split(data, local)
    return endless(data).prefetch(2 * local)


def require_index(source):
    """Checks that the images of a source have numbers.

    Raises:
        ValueError: if it is a `Stream`.
    """
    if isinstance(source, Stream):
        raise ValueError(
            "The memory bank needs data with random access, whose images have numbers. Received: "
            "records that are streamed. Use another `config.data.source`, such as folder:DIR, or "
            "another `config.model.mechanism`."
        )


def key_order(n, seed, step, host):
    """Permutation of a host's n key views at a step: position j holds row order[j]; int32, n."""
    key = random_key("key order", seed, tf.cast(step, tf.int64) * 4096 + host)
    uniform = tf.random.stateless_uniform([n], key, alg="philox")
    return tf.argsort(uniform, stable=True)


def image_of_slot(slot, batch, num_examples, seed):
    """Index of the image in a slot: each epoch a new permutation, without its incomplete batch.

    Args:
        slot: int64, scalar or vector of slots of one epoch.
        batch: rows of the global batch.
        num_examples: images of the source.
        seed: int, of the run.

    Returns:
        int64 of the same shape, in [0, num_examples).
    """
    epoch_slots = num_examples // batch * batch
    key = random_key("image order", seed, tf.reshape(slot, [-1])[0] // epoch_slots)
    return tf.random.experimental.index_shuffle(slot % epoch_slots, key, num_examples - 1)


def _chunk_rows(layout):
    """Examples that are made together, for little overhead each: a divisor of a replica's rows."""
    return max(n for n in range(1, 17) if layout.replica_rows % n == 0)


def examples(source, layout, host, seed, start_step, shuffle_buffer, shard_files):
    """This host's examples in order, in chunks: `slot` (int64) and `key`."""
    first, rows = host * layout.host_rows, layout.host_rows
    chunk = _chunk_rows(layout)
    slots = tf.data.Dataset.range(start_step, tf.int64.max).map(
        lambda step: step * layout.batch + first + tf.range(rows, dtype=tf.int64)
    )
    if not isinstance(source, Stream):

        def find(slots):
            index = image_of_slot(slots, layout.batch, source.num_examples, seed)
            return {"slot": slots, "key": index}

        return slots.map(find).unbatch().batch(chunk, drop_remainder=True)

    batch, files = (rows, (layout.hosts, host)) if shard_files else (layout.batch, (1, 0))
    steps_per_epoch = source.num_examples // layout.batch
    epoch, offset = divmod(start_step, steps_per_epoch)
    # A host with few records in its files sees them again, so that each epoch is as long.
    records = tf.data.Dataset.range(epoch, tf.int64.max).flat_map(
        lambda e: (
            source.epoch(seed, e, shuffle_buffer, files).repeat().take(steps_per_epoch * batch)
        )
    )
    # A resume reads the records before it again, without decoding them.
    records = records.skip(offset * batch)
    if batch > rows:
        records = records.batch(batch).map(lambda r: r[first : first + rows]).unbatch()

    pairs = tf.data.Dataset.zip({"slot": slots.unbatch(), "key": records})
    return pairs.batch(chunk, drop_remainder=True)


def _order(batch, layout, host, permute):
    """Adds the queries' global rows and permutes, by (seed, step), all that belongs to the keys."""
    first, n = host * layout.host_rows, layout.host_rows
    batch["row"] = first + tf.range(n)
    if permute:
        order = key_order(n, *permute, host)
        for name in ("x_k", "draws_k"):
            batch[name] = tf.gather(batch[name], order)
        batch["order"] = first + order
    return batch


def split(data, count):
    """Batches to `count` equal parts of each, in turn."""

    def parts(batch):
        return {n: tf.reshape(x, [count, -1, *x.shape[1:]]) for n, x in batch.items()}

    return data.map(parts).unbatch()


def joined(data, count):
    """The reverse of `split`."""

    def join(parts):
        return {n: tf.reshape(x, [-1, *x.shape[2:]]) for n, x in parts.items()}

    return data.batch(count, drop_remainder=True).map(join)


def endless(data):
    """Data that repeats, and says so: it keeps its static shapes when it is distributed."""
    return data.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _colour(recipe, jit_compile):
    """Function that applies the photometric half to the views in a batch."""

    def one(view):
        x, u = view
        return recipe.photometric(x[None], u[None])[0]

    # Image by image, since each needs few of the ops. XLA compiles for one shape of image, which
    # is why geometry, with images of all sizes, is not in it.
    @functools.partial(tf.function, jit_compile=jit_compile, autograph=False)
    def all_views(x, u):
        return tf.map_fn(one, (x, u), fn_output_signature=tf.TensorSpec(x.shape[1:]))

    @plain
    def colour(batch):
        views = {f"x_{i}": all_views(batch[f"x_{i}"], batch.pop(f"draws_{i}")) for i in "qk"}
        return batch | views

    return colour
