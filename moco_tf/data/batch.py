"""The batch of two views: every key, its shape, who makes it and who reads it.

An image's way from its bytes to the queue:

    sources/folder.py     the file's bytes
    sources/source.py     `Source.image`: decoded, uint8 HxWx3
    two_views.py          two views of each image, a batch of them for each replica
    recipes/recipe.py     the pixels of a view: crop, colors, normalization
    pretraining/build.py  `make_step`: colors, if they are left to the device; calls `MoCo.step`
    moco.py               `MoCo.step`: embeddings, loss, queue

On this way `bad_images.py` replaces what cannot be decoded, and `training/loop.py` hands over the
batches.

n is the number of rows: a chunk's, the host's or, in the end, one replica's. S is
`data.image_size_px`. "Host" and "device" say where the photometric half runs (`data.augment_on`).

| key | shape | dtype | made by | read by |
|---|---|---|---|---|
| x_q | nxSxSx3 | float32 (host), uint8 (device) | two_views.py | `unpack` |
| x_k | nxSxSx3 | float32 (host), uint8 (device) | two_views.py | `unpack` |
| draws_q | n x recipe.num_draws | float32 | two_views.py | `color_views` (device only) |
| draws_k | n x recipe_k.num_draws | float32 | two_views.py | `color_views` (device only) |
| row | n | int32 | two_views.py | `unpack` |
| order | n | int32 | two_views.py, if it permutes | `unpack` |
| index | n | int64 | two_views.py, `with_index` only | `MemoryBank.step` |
| ok | n | bool | bad_images.py | training/loop.py, for the log |
| name | nx120 | uint8 | bad_images.py | training/loop.py, for the log |

`unpack` is `Contrastive.unpack`, the first line of `MoCo.step`.

Inside the input pipeline a batch also has, until `bad_images.replace_bad` removes them:

| key | shape | dtype | made by | read by |
|---|---|---|---|---|
| slot | n | int64 | `tfdata.examples` | the recipe's draws |
| key | n | int64 or string | `tfdata.examples` | the source: a number or a record |

A dataset of your own for `MoCo.fit` needs x_q and x_k only, as `(x_q, x_k)` or as this dict.
"""

from typing import NotRequired, TypedDict

import tensorflow as tf


class TwoViewBatch(TypedDict):
    """One replica's rows of a batch, as `two_view_dataset` yields them.

    Attributes:
        x_q: query views.
        x_k: key views, perhaps in another order than the queries.
        draws_q: random numbers that the query views are made by, while their colors are to come.
        draws_k: random numbers that the key views are made by, in the order of x_k.
        row: global row of each query view.
        order: global row of each key view; without it, x_k has the order of x_q.
        index: number in the source of the image that each query shows.
        ok: whether the row's own image could be decoded; if not, another image replaces it.
        name: name of the row's own image, its last 120 bytes, zero-padded at the end.
    """

    x_q: tf.Tensor
    x_k: tf.Tensor
    draws_q: NotRequired[tf.Tensor]
    draws_k: NotRequired[tf.Tensor]
    row: tf.Tensor
    order: NotRequired[tf.Tensor]
    index: NotRequired[tf.Tensor]
    ok: tf.Tensor
    name: tf.Tensor
