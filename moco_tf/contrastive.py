"""Base class of the contrastive mechanisms: batches, micro-batches, metrics, serialization.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K negatives.
"""

import inspect
from typing import ClassVar

import keras
import tensorflow as tf

from moco_tf import distribute, fit_data, updates
from moco_tf.trainer import Trainer


class Contrastive(Trainer):
    """Trains an encoder to tell the other view of an image from negatives.

    A mechanism is a subclass with a `step`, and with a `score` for `evaluate` and validation data.
    `--config.model.mechanism` finds it by its `mechanism` or by its import path. Each argument of
    its constructor must become an attribute of the same name, so that the model can be saved and
    loaded. A run fills the arguments from the fields of the same name in its config's `model`, from
    seed, gradient_accumulation, num_images and total_steps, and from `model.mechanism_options`.

    Args:
        encoder: functional or built Sequential `keras.Model` from images to NxC embeddings.
        temperature: divides the similarities, > 0.
        shuffle: whether batches that do not bring an `order` are shuffled (shuffle-BN).
        gradient_accumulation: M micro-batches per step, exactly equal to one large batch if each
            is a whole number of BN groups.
        seed: int, of the random start and the shuffling.

    Attributes:
        mechanism: name for `--config.model.mechanism`.
        METRICS: names of what `step` and `score` return.
        symmetric: whether both views serve as queries.
        has_queue: whether `queue` holds keys of earlier steps, which `queue_ptr` overwrites next.
        needs_index: whether batches must bring `index`, the images' numbers.
        keys_share_batch: whether a key may share its BN group with its query.

    Raises:
        ValueError: for a value out of range, or an encoder whose output shape is not known.
    """

    mechanism: ClassVar[str]
    METRICS = ("loss", "top1", "top5")
    symmetric = False
    has_queue = False
    needs_index = False
    keys_share_batch = True

    def __init__(
        self,
        encoder,
        temperature=0.07,
        shuffle=True,
        gradient_accumulation=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        require(temperature > 0, "`temperature` must be positive", temperature=temperature)
        require(
            gradient_accumulation >= 1,
            "`gradient_accumulation` must be at least 1",
            gradient_accumulation=gradient_accumulation,
        )
        # A subclassed model does not know its output shape, nor always how to be cloned.
        require(
            getattr(encoder, "output_shape", None) is not None,
            "`encoder` must be a functional or a built Sequential model, so that it can be cloned "
            "for the keys. Wrap a subclassed one: `keras.Model(images, subclassed(images))`",
            encoder=f"{type(encoder).__name__}, built={encoder.built}",
        )
        self.temperature = temperature
        self.shuffle = shuffle
        self.gradient_accumulation = gradient_accumulation
        self.seed = seed
        self.encoder_q = encoder
        self.built = True

    @classmethod
    def arguments(cls) -> list[str]:
        """Names of the constructor's arguments after `encoder`."""
        names = inspect.signature(cls.__init__).parameters
        return [name for name in names if name not in ("self", "encoder", "kwargs")]

    @staticmethod
    def num_negatives(queue_size: int, batch_size: int) -> int:
        """Number of negatives of a query, by the config's numbers; by default the batch's."""
        return batch_size - 1

    @staticmethod
    def loss_factor(temperature: float) -> float:
        """What the loss multiplies `info_nce` by."""
        return 1.0

    def filled(self, step: int, batch_size: int) -> float:
        """Share in [0, 1] of the negatives that are not random any more after a step."""
        return 1.0

    def step(self, batch):
        """One update of the encoder by a batch; `train_step` and the training loop call it.

        Args:
            batch: `(x_q, x_k)`, or a dict as documented in `unpack`.

        Returns:
            Dict of `METRICS`, scalars of this replica: the loss in nats, NaN if the step was
            skipped; shares in [0, 1] of queries whose positive has the highest (`top1`) or one
            of the five highest (`top5`) similarities.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `step`.")

    def unpack(self, batch):
        """The views of a batch and the global rows that they show; shuffles if need be.

        Args:
            batch: `(x_q, x_k)`, two batches of views of the same images, NxHxWxc. Or a dict of
                them with, if the input pipeline shuffled,
                order: int32, N. x_k[j] is the key view of global row order[j].
                row: int32, N. x_q[i] is the query view of global row row[i].

        Returns:
            `(x_q, x_k, row, order)`.

        Raises:
            ValueError: for anything else, or a batch of unknown size.
        """
        batch = fit_data.pair(batch)
        require({"x_q", "x_k"} <= batch.keys(), "A batch must have x_q and x_k", keys=set(batch))
        x_q = batch["x_q"]
        x_k = batch["x_k"]
        n = x_q.shape[0]
        rule = (
            "The batch size must be fixed: use `dataset.batch(n, drop_remainder=True)`, or "
            "`drop_last=True` in a DataLoader"
        )
        require(n is not None, rule, shape=x_q.shape)
        rule = "x_q and x_k must be views of the same images"
        require(n == x_k.shape[0], rule, x_q=n, x_k=x_k.shape[0])
        row = batch.get("row", distribute.local_rows(n))
        order = batch.get("order", row)
        if self.shuffle and "order" not in batch:
            x_k, order = distribute.shuffle(x_k, [self.seed, self.optimizer.iterations.value])
        return x_q, x_k, row, order

    def aligned(self, batch):
        """The views of a batch, of which x_k[i] shows the image of x_q[i]: `(x_q, x_k)`.

        Args:
            batch: same as in `unpack`, of any size.
        """
        batch = fit_data.pair(batch)
        require({"x_q", "x_k"} <= batch.keys(), "A batch must have x_q and x_k", keys=set(batch))
        x_k = batch["x_k"]
        if "order" in batch:
            x_k = tf.gather(distribute.in_global_order(x_k, batch["order"]), batch["row"])
        return batch["x_q"], x_k

    def minimize(self, loss_fn, views):
        """One optimizer step on the mean loss over the micro-batches of `views`.

        Trains all of `trained_networks`, whose BN statistics move as in one large batch. A step
        that is not finite on all replicas changes nothing, see `updates.apply_if_finite`.

        Args:
            loss_fn: function from `views`, or a micro-batch of them, to a dict of `METRICS`.
                Without micro-batches it may hold more tensors.
            views: nest of tensors with N rows each.

        Returns:
            `(logs, counts)`: the dict, a mean over micro-batches, with a NaN loss if the step was
            skipped; and a bool scalar, false if it was.
        """
        variables = self.trainable_variables
        statistics = [v for network in self.trained_networks for v in statistics_of(network)]
        old_values = updates.values(statistics)

        def gradients_and_logs(views):
            return updates.gradients(
                self.optimizer, lambda: loss_fn(views), variables, self.gradient_accumulation
            )

        zeros = [tf.zeros(v.shape) for v in variables]
        initial = zeros, dict.fromkeys(self.METRICS, 0.0)
        gradients, logs = self.sum_over_micro_batches(
            gradients_and_logs, views, initial, statistics
        )
        logs = {name: value / self.gradient_accumulation for name, value in logs.items()}
        logs, counts = updates.apply_if_finite(self.optimizer, gradients, variables, logs)
        updates.restore_unless(counts, statistics, old_values)
        return logs, counts

    def sum_over_micro_batches(self, fn, views, initial, statistics):
        """Adds up `fn(micro-batch)` over the M micro-batches of `views`.

        Args:
            fn: function from a micro-batch to a nest of tensors.
            views: nest of tensors with N rows each.
            initial: what the sum starts from, of `fn`'s structure.
            statistics: BN statistics that `fn` moves. Each micro-batch starts from the old ones,
                and their mean is kept.
        """
        m = self.gradient_accumulation
        if m == 1:
            return fn(views)
        n = tf.nest.flatten(views)[0].shape[0]
        rule = "`gradient_accumulation` must divide the rows on a replica"
        require(n % m == 0, rule, rows=n, gradient_accumulation=m)
        old_values = updates.values(statistics)
        split = tf.nest.map_structure(lambda x: tf.reshape(x, [m, n // m, *x.shape[1:]]), views)

        def add(i, total):
            updates.assign(statistics, old_values)
            result = fn(tf.nest.map_structure(lambda x: x[i], split))
            result = result, updates.values(statistics)
            return i + 1, tf.nest.map_structure(tf.add, total, result)

        initial = 0, (initial, [tf.zeros_like(value) for value in old_values])
        # One at a time: the point is the memory of one micro-batch.
        _, (total, after) = tf.while_loop(
            lambda i, _: i < m, add, initial, parallel_iterations=1, maximum_iterations=m
        )
        updates.assign(statistics, [value / m for value in after])
        return total

    def get_config(self):
        config = {name: getattr(self, name) for name in self.arguments()}
        return {"encoder": keras.saving.serialize_keras_object(self.encoder_q), **config}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


def info_nce(l_pos, l_neg, temperature):
    """InfoNCE loss and accuracies of queries by their similarities. Source: v1, equation 1.

    Args:
        l_pos: float32 N, to the positives.
        l_neg: float32 NxK, to the negatives; minus infinity for those that do not count.
        temperature: divides the similarities.

    Returns:
        Dict of loss (nats, the mean over N), top1 and top5 (shares in [0, 1]).
    """
    # -log softmax of the positive among 1 + K, without a copy of the Nx(1+K) logits.
    log_neg = tf.reduce_logsumexp(l_neg / temperature, axis=1)
    loss = tf.reduce_mean(tf.math.softplus(log_neg - l_pos / temperature))
    # "Not below" rather than "above": a NaN must not pass for a hit.
    rank = tf.math.count_nonzero(~(l_neg <= l_pos[:, None]), axis=1, dtype=tf.int32)
    top1 = tf.reduce_mean(tf.cast(rank < 1, tf.float32))
    top5 = tf.reduce_mean(tf.cast(rank < 5, tf.float32))
    return {"loss": loss, "top1": top1, "top5": top5}


def normalize(x):
    """Unit-length rows, in float32 also when the encoder computes in bfloat16."""
    return tf.math.l2_normalize(tf.cast(x, tf.float32), axis=1)


def random_keys(seed):
    """Initializer of queues and banks: random unit rows."""

    def initialize(shape, dtype=None):
        @tf.function(autograph=False)  # eagerly, several copies of the queue would be held
        def rows():
            return normalize(tf.random.stateless_normal(shape, [seed, 0], dtype=dtype or "float32"))

        # Unlike a call, it warns of no retracing in a script that makes many models.
        return rows.get_concrete_function()()

    return initialize


def statistics_of(network):
    """The BN statistics of a network: float32 variables that its forward pass moves in training."""
    frozen = {id(v) for x in network._flatten_layers() if not x.trainable for v in x.variables}
    variables = network.non_trainable_variables
    return [v for v in variables if v.dtype == "float32" and id(v) not in frozen]


def require(condition, rule, **received):
    """Raises a ValueError that names the rule and what was received, unless the condition holds."""
    if not condition:
        values = ", ".join(f"{key}={value}" for key, value in received.items())
        raise ValueError(f"{rule}. Received: {values}.")


def both_sides(logs, other):
    """Logs of a symmetric loss: the sum of the two losses, the means of the accuracies."""
    return {
        "loss": logs["loss"] + other["loss"],
        "top1": (logs["top1"] + other["top1"]) / 2,
        "top5": (logs["top5"] + other["top5"]) / 2,
    }
