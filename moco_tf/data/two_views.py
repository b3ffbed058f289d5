"""Source and recipe to batches of two views, as a pure function of (seed, step).

Slots number the samples of a run: slot = step * global batch + row. Which image fills a
slot, and how it is augmented, depends on the seed and the slot alone, so that a run
resumes at any step and means the same on any number of hosts and replicas.
"""

import functools

import tensorflow as tf

from moco_tf.data import bad_images
from moco_tf.data.random_key import random_key
from moco_tf.data.sources import Stream
from moco_tf.data.tfdata import chunk_rows, endless, examples, joined, plain, split


def two_view_dataset(
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
        layout: `BatchLayout`.
        host: which of the layout's hosts this one is.
        image_size_px: side of the views.
        seed: int, of the run.
        start_step: first step to yield.
        shuffle: shuffle-BN; permutes the key views if the layout says so.
        augment_on: "host", or "device": colors and blur are then left to the recipe's
            `photometric`, and views are uint8.
        jit_compile: colors and blur on the host are compiled by XLA: the same pixels at several
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
    chunks = layout.host_rows // chunk_rows(layout)
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
        data = split(data, chunks).map(_color(recipe, jit_compile), tf.data.AUTOTUNE)
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


def _color(recipe, jit_compile):
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
    def color(batch):
        views = {f"x_{i}": all_views(batch[f"x_{i}"], batch.pop(f"draws_{i}")) for i in "qk"}
        return batch | views

    return color
