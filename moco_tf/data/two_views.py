"""Input pipeline of pre-training: batches of two views, a pure function of (seed, step).

Slots number the samples of a run: slot = step * global batch + row. The slot and the seed alone
say which image fills a slot and how its views are made. So a run can resume at any step, and it
sees the same views on any number of hosts and replicas.

`moco_tf.data.batch` documents the batch key by key.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from moco_tf.data import bad_images
from moco_tf.data.batch import TwoViewBatch
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.random_key import random_key
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.data.sources import Source, Stream
from moco_tf.data.tfdata import (
    chunk_rows,
    endless,
    examples,
    join,
    no_autograph,
    split,
    traced_once,
)

QUERY, KEY = 0, 1  # the views, for `Recipe.draw`


def two_view_dataset(
    source: Source | Stream,
    recipe: Recipe,
    layout: BatchLayout,
    *,
    recipe_k: Recipe | None = None,
    host: int = 0,
    image_size_px: int = 224,
    seed: int = 0,
    start_step: int = 0,
    shuffle: bool = True,
    augment_on: str = "host",
    jit_compile: bool = True,
    shuffle_buffer: int = 10_000,
    shard_files: bool = False,
    with_index: bool = False,
    epochs: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """Endless batches of two views for one host, one replica's rows at a time.

    Args:
        source: `Source` or `Stream` of images.
        recipe: augmentation of the query view, and of the key view without `recipe_k`.
        layout: `BatchLayout`.
        recipe_k: augmentation of the key view; None for `recipe`.
        host: number of this host, in 0..layout.hosts - 1.
        image_size_px: side of the views.
        seed: seed of the run.
        start_step: first step to yield.
        shuffle: shuffle-BN: permute the key views if the layout says so.
        augment_on: "host", or "device": views are then uint8 crops, and `color_views` finishes
            them in the training step.
        jit_compile: compile colors and blur on the host with XLA: the same pixels at several
            times the speed, after a second or two of compilation.
        shuffle_buffer: records that a `Stream` holds in memory to shuffle them.
        shard_files: each host reads files of its own instead of rows of one global order. It reads
            less, but the order then depends on the number of hosts.
        with_index: also yield the images' numbers in the source, which a `Stream` does not have.
        epochs: the number of the only epoch to yield, int64, for each iteration; without shuffle.
            None: all epochs from `start_step` on.

    Returns:
        `tf.data.Dataset` of `TwoViewBatch`, one element for each replica of this host in turn.

    Raises:
        ValueError: if the source has fewer images than one batch, or no numbers for `with_index`.

    Example:
        >>> from moco_tf.data import recipes, sources
        >>> source = sources.open_source("synthetic:shapes")
        >>> data = two_view_dataset(
        ...     source, recipes.find("moco:v2"), BatchLayout(batch=64), image_size_px=32
        ... )
        >>> next(iter(data))["x_q"].shape
        TensorShape([64, 32, 32, 3])
    """
    recipe_k = recipe_k or recipe
    if with_index:
        require_index(source)
    if source.num_examples < layout.batch:
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{source.num_examples} images, batch {layout.batch}. Lower the batch size."
        )

    @traced_once
    def make_views(key, slot):
        """Two crops of one image, and the draws that their colors will need."""
        image = source.image(key)
        draws_q = recipe.draw(seed, slot, QUERY)
        draws_k = recipe_k.draw(seed, slot, KEY)
        sample = {
            "x_q": recipe.geometry(image, draws_q, image_size_px),
            "draws_q": draws_q,
            "x_k": recipe_k.geometry(image, draws_k, image_size_px),
            "draws_k": draws_k,
        }
        if with_index:
            sample["index"] = key
        return sample

    first_row = host * layout.host_rows
    permute = shuffle and layout.shuffling == "input"

    @no_autograph
    def finish(step, batch):
        """This host's rows of a step: bad images replaced, key views permuted."""
        batch = bad_images.replace_bad(batch, make_views, layout.group_rows)
        batch["name"] = bad_images.encode_names(batch["name"])
        batch["row"] = first_row + tf.range(layout.host_rows)
        if permute:
            order = key_order(layout.host_rows, seed, step, host)
            batch["x_k"] = tf.gather(batch["x_k"], order)
            batch["draws_k"] = tf.gather(batch["draws_k"], order)
            batch["order"] = first_row + order
        return batch

    # Small chunks of rows until here, since many are made at a time; then all rows of a step.
    data = examples(
        source,
        layout,
        seed=seed,
        shuffle_buffer=shuffle_buffer,
        host=host,
        start_step=start_step,
        shard_files=shard_files,
        epochs=epochs,
    )
    data = bad_images.make_samples(data, make_views, source.name)
    chunks = layout.host_rows // chunk_rows(layout)
    data = join(data, chunks)
    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    data = tf.data.Dataset.zip(steps, data).map(finish)

    local_replicas = layout.replicas // layout.hosts
    if augment_on == "host":
        photometric_q = _one_by_one(recipe, jit_compile)
        photometric_k = photometric_q if recipe_k is recipe else _one_by_one(recipe_k, jit_compile)

        @no_autograph
        def color(batch):
            return color_views(batch, photometric_q, photometric_k)

        data = split(data, chunks).map(color, tf.data.AUTOTUNE)
        data = join(data, chunks // local_replicas)
    else:
        data = split(data, local_replicas)
    if epochs is not None:
        length = source.num_examples // layout.batch * local_replicas
        return data.apply(tf.data.experimental.assert_cardinality(length))
    return endless(data).prefetch(2 * local_replicas)


def color_views(
    batch: TwoViewBatch, photometric_q: Callable, photometric_k: Callable
) -> TwoViewBatch:
    """Finishes the views of a batch that still has their draws: colors, blur, normalization.

    Args:
        batch: `TwoViewBatch`; without draws it is returned as it is.
        photometric_q: `Recipe.photometric` of the query views, perhaps compiled.
        photometric_k: `Recipe.photometric` of the key views, perhaps compiled.

    Returns:
        The batch with float32 views and without draws.
    """
    batch = dict(batch)
    if "draws_q" in batch:
        batch["x_q"] = photometric_q(batch["x_q"], batch.pop("draws_q"))
        batch["x_k"] = photometric_k(batch["x_k"], batch.pop("draws_k"))
    return batch


def require_index(source: Source | Stream):
    """Checks that the images of a source have numbers.

    Raises:
        ValueError: if it is a `Stream`.
    """
    if isinstance(source, Stream):
        raise ValueError(
            "The memory bank needs data with random access, whose images have numbers. Received: "
            "streamed records. Use another `--config.data.source`, such as folder:DIR, or "
            "another `--config.model.mechanism`."
        )


def key_order(n, seed, step, host) -> tf.Tensor:
    """Permutation of a host's n key views at a step: position j holds row order[j]; int32, n."""
    key = random_key("key order", seed, tf.cast(step, tf.int64) * 4096 + host)
    uniform = tf.random.stateless_uniform([n], key, alg="philox")
    return tf.argsort(uniform, stable=True)


def _one_by_one(recipe, jit_compile):
    """`recipe.photometric`, compiled, image by image, since each image needs few of the ops."""

    def one_image(view):
        x, u = view
        return recipe.photometric(x[None], u[None])[0]

    # XLA compiles for one shape of image, which is why geometry, with images of all sizes, is not
    # in it.
    @functools.partial(tf.function, jit_compile=jit_compile, autograph=False)
    def photometric(x, u):
        return tf.map_fn(one_image, (x, u), fn_output_signature=tf.TensorSpec(x.shape[1:]))

    return photometric
