"""Momentum Contrast: the algorithm, and nothing but the algorithm.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K queue.

Source: MoCo v1 (arXiv:1911.05722), algorithm 1; moco/builder.py of the official code;
the symmetric loss of its CIFAR-10 demo.
"""

import keras
import tensorflow as tf

from moco_tf import distribute


@keras.saving.register_keras_serializable("moco_tf")
class MoCo(keras.Model):
    """Trains `encoder` to match two views of an image against a queue of other images' keys.

    Use it like any Keras model: `model.compile(optimizer); model.fit(dataset)`, where the
    dataset yields `(x_q, x_k)`, two batches of views of the same images (NxHxWxc, batched
    with drop_remainder=True). `train_step` also takes a dict, see there.

    Args:
        encoder: functional or built Sequential `keras.Model` from images to NxC embeddings.
        queue_size: K, the number of negatives; at least the global batch (twice it if symmetric).
        momentum: m, the share of the key encoder kept at each step, in [0, 1].
        temperature: divides the similarities, > 0.
        symmetric: each view serves as query once and as key once; the two losses are added.
        shuffle: shuffle-BN for batches that do not bring an `order`.
        gradient_accumulation: M micro-batches per step, exactly equal to one large batch if each
            is a whole number of BN groups.
        seed: of the queue's start and the shuffling.

    Raises:
        ValueError: for a value out of range, or an encoder that cannot be cloned.
    """

    SETTINGS = (
        *("queue_size", "momentum", "temperature", "symmetric"),
        *("shuffle", "gradient_accumulation", "seed"),
    )

    def __init__(
        self,
        encoder,
        queue_size=65536,
        momentum=0.999,
        temperature=0.07,
        symmetric=False,
        shuffle=True,
        gradient_accumulation=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        require(queue_size >= 1, "`queue_size` must be at least 1", queue_size=queue_size)
        require(0 <= momentum <= 1, "`momentum` must be in [0, 1]", momentum=momentum)
        require(temperature > 0, "`temperature` must be positive", temperature=temperature)
        m = gradient_accumulation
        require(m >= 1, "`gradient_accumulation` must be at least 1", gradient_accumulation=m)
        self.queue_size = queue_size
        self.momentum = momentum
        self.temperature = temperature
        self.symmetric = symmetric
        self.shuffle = shuffle
        self.gradient_accumulation = gradient_accumulation
        self.seed = seed

        self.encoder_q = encoder
        self._make_dictionary()
        self._means = [keras.metrics.Mean(name) for name in ("loss", "top1", "top5")]
        self.built = True

    def _make_dictionary(self):
        """What the keys come from and go to: key encoder, queue and pointer."""
        # It stays trainable, so that its BatchNorm uses batch statistics, but the optimizer never
        # sees it: `trainable_variables` below.
        self.encoder_k = _copy(self.encoder_q)
        # aggregation="none": replicas assign the same values without a collective.
        self.queue = self.add_weight(  # queue: KxC, unit rows
            name="queue",
            shape=(self.queue_size, self.encoder_q.output_shape[-1]),
            initializer=self._random_keys,
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="none",
        )
        self.queue_ptr = self.add_weight(
            name="queue_ptr",
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="int64",
            aggregation="none",
        )

    def step(self, batch):
        """One update of both encoders and the queue; what `train_step` and `training.py` run.

        Args:
            batch: `(x_q, x_k)`, or a dict of them with, from an input pipeline that shuffled:
                order: int32, N. x_k[j] is the key view of global row order[j].
                row: int32, N. x_q[i] is the query view of global row row[i].

        Returns:
            Dict of this replica's loss (nats), and share in [0, 1] of queries whose positive has
            the highest (`top1`) or one of the five highest (`top5`) similarities, or NaN.
        """
        x_q, x_k, row, order = self._views(batch)

        self._update_key_encoder()
        keys = [self._keys(x_k, order)]  # BxC, in global order
        queries = [(x_q, row)]
        if self.symmetric:
            # Encode each view with both encoders: k1 was normalised in another group than q2,
            # as k2 was in another than q1, without a further image.
            keys.append(self._keys(x_q, row))
            queries.append((x_k, order))

        # Losses are means over a micro-batch, and the optimizer adds up the replicas' gradients.
        m = self.gradient_accumulation
        parts = m * distribute.num_replicas()

        def contrast(queries):
            with tf.GradientTape() as tape:
                losses, tops = zip(*[self._contrast(x, i, k) for (x, i), k in zip(queries, keys)])
                loss = tf.add_n(losses) / parts
            gradients = tape.gradient(loss, self.encoder_q.trainable_variables)
            return gradients, tf.concat([[loss * parts], tf.add_n(tops) / len(tops)], axis=0)

        initial = [tf.zeros(v.shape) for v in self.encoder_q.trainable_variables], tf.zeros(3)
        gradients, logs = self._sum_over_micro_batches(self.encoder_q, contrast, queries, initial)
        logs, gradients = distribute.poison(logs, gradients)
        self.optimizer.apply(gradients, self.encoder_q.trainable_variables)

        self._enqueue(tf.concat(keys[::-1], axis=0))
        return dict(zip(("loss", "top1", "top5"), tf.unstack(logs / m)))

    def _contrast(self, x, row, keys):
        """InfoNCE of queries x (NxHxWxc, global rows `row`) against their keys and the queue."""
        q = normalize(self.encoder_q(x, training=True))  # queries: NxC
        l_pos = tf.reduce_sum(q * tf.gather(keys, row), axis=1)  # N
        return self._info_nce(l_pos, tf.matmul(q, self.queue, transpose_b=True))

    def _info_nce(self, l_pos, l_neg):
        """Loss and accuracies by similarities to positives, l_pos: N, and negatives, l_neg: NxK."""
        # -log softmax of the positive among 1 + K, without a copy of the Nx(1+K) logits.
        log_neg = tf.reduce_logsumexp(l_neg / self.temperature, axis=1)
        loss = tf.reduce_mean(tf.math.softplus(log_neg - l_pos / self.temperature))
        # "Not below" rather than "above": a NaN must not pass for a hit.
        rank = tf.math.count_nonzero(~(l_neg <= l_pos[:, None]), axis=1, dtype=tf.int32)
        top = tf.reduce_mean(tf.cast(rank[:, None] < [1, 5], tf.float32), axis=0)
        return loss, top

    def _keys(self, x, order):
        """Keys of all replicas in global order, BxC, for key views x of global rows `order`."""
        shape = x.shape[0], self.queue.shape[1]

        def encode(views):
            x, rows = views
            k = normalize(self.encoder_k(x, training=True))
            return tf.scatter_nd(rows[:, None], k, shape)  # zero but for this micro-batch: NxC

        views = x, tf.range(x.shape[0])
        k = self._sum_over_micro_batches(self.encoder_k, encode, views, tf.zeros(shape))
        # ReLU turns NaN into 0 on most devices, and here no gradient would tell.
        k += distribute.nan_unless_finite([x, *self.encoder_k.trainable_variables])
        return distribute.in_global_order(k, order)

    def _update_key_encoder(self):
        """Moves the key encoder towards the query encoder; parameters only, never BN statistics."""
        m = self.momentum
        for v_k, v_q in zip(self.encoder_k.trainable_variables, self.encoder_q.trainable_variables):
            v_k.assign(m * v_k + (1 - m) * v_q)

    def _enqueue(self, keys):
        """Overwrites the oldest keys by `keys`, wrapping around the end of the queue."""
        n = keys.shape[0]
        rule = "`queue_size` must be at least the new keys of a step (twice the batch if symmetric)"
        require(self.queue_size >= n, rule, queue_size=self.queue_size, new_keys=n)
        rows = (self.queue_ptr + tf.range(n, dtype=tf.int64)) % self.queue_size
        # A queue with a NaN would never be rid of it: the loss of every later step is one.
        keys = tf.where(tf.math.is_finite(keys), keys, tf.gather(self.queue.value, rows))
        # Writes the new rows only: an assign would copy the whole queue.
        self.queue.value.scatter_update(tf.IndexedSlices(keys, rows))
        self.queue_ptr.assign((self.queue_ptr + n) % self.queue_size)

    def _sum_over_micro_batches(self, encoder, fn, views, initial):
        """Adds up `fn(micro-batch)` over the M micro-batches of `views`, starting at `initial`.

        The running statistics of `encoder` move as in one large batch: each micro-batch starts
        from the old ones, and their mean is kept.
        """
        m, n = self.gradient_accumulation, tf.nest.flatten(views)[0].shape[0]
        if m == 1:
            return fn(views)
        rule = "`gradient_accumulation` must divide the rows on a replica"
        require(n % m == 0, rule, rows=n, gradient_accumulation=m)
        state = [v for v in encoder.non_trainable_variables if v.dtype == "float32"]
        before = [tf.identity(v.value) for v in state]
        split = tf.nest.map_structure(lambda x: tf.reshape(x, [m, n // m, *x.shape[1:]]), views)

        def add(i, total):
            for v, start in zip(state, before):
                v.assign(start)
            result = fn(tf.nest.map_structure(lambda x: x[i], split))
            result = result, [tf.identity(v.value) for v in state]
            return i + 1, tf.nest.map_structure(tf.add, total, result)

        initial = 0, (initial, [tf.zeros_like(v) for v in before])
        # One at a time: the point is the memory of one micro-batch.
        _, (total, after) = tf.while_loop(
            lambda i, _: i < m, add, initial, parallel_iterations=1, maximum_iterations=m
        )
        for v, value in zip(state, after):
            v.assign(value / m)
        return total

    def _views(self, batch):
        """Unpacks `(x_q, x_k)` or a dict into x_q, x_k (NxHxWxc), row and order (N)."""
        if not isinstance(batch, dict):
            require(
                isinstance(batch, (tuple, list)) and len(batch) == 2,
                "The dataset must yield `(x_q, x_k)`, two batches of views of the same images",
                batch=tf.nest.map_structure(lambda x: getattr(x, "shape", x), batch),
            )
            batch = {"x_q": batch[0], "x_k": batch[1]}
        require({"x_q", "x_k"} <= batch.keys(), "A batch must have x_q and x_k", keys=set(batch))
        x_q, x_k = batch["x_q"], batch["x_k"]
        n = x_q.shape[0]
        rule = "The batch size must be fixed: use `dataset.batch(n, drop_remainder=True)`"
        require(n is not None, rule, shape=x_q.shape)
        rule = "x_q and x_k must be views of the same images"
        require(n == x_k.shape[0], rule, x_q=n, x_k=x_k.shape[0])
        row = batch.get("row", distribute.local_rows(n))
        order = batch.get("order", row)
        if self.shuffle and "order" not in batch:
            x_k, order = distribute.shuffle(x_k, [self.seed, self.optimizer.iterations.value])
        return x_q, x_k, row, order

    def train_step(self, data):
        """`step` for `model.fit`: returns the running means over the epoch."""
        logs = self.step(data)
        for mean in self._means:
            mean.update_state(logs[mean.name])
        return {mean.name: mean.result() for mean in self._means}

    def call(self, images, training=False):
        """Embeddings of the query encoder, NxC, not normalised."""
        return self.encoder_q(images, training=training)

    @property
    def metrics(self):
        return self._means

    @property
    def trainable_variables(self):
        """The query encoder's: all that the optimizer may change."""
        return self.encoder_q.trainable_variables

    trainable_weights = trainable_variables

    def get_config(self):
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        return {"encoder": keras.saving.serialize_keras_object(self.encoder_q), **settings}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})

    def _random_keys(self, shape, dtype=None):
        return normalize(tf.random.stateless_normal(shape, [self.seed, 0], dtype=dtype))


def normalize(x):
    """Unit-length rows, in float32 also when the encoder computes in bfloat16."""
    return tf.math.l2_normalize(tf.cast(x, tf.float32), axis=1)


def _copy(encoder):
    # A subclassed model does not know its output shape, nor always how to be cloned.
    require(
        getattr(encoder, "output_shape", None) is not None,
        "`encoder` must be a functional or a built Sequential model, so that it can be cloned for "
        "the keys. Wrap a subclassed one: `keras.Model(images, subclassed(images))`",
        encoder=f"{type(encoder).__name__}, built={encoder.built}",
    )
    copy = keras.models.clone_model(encoder)
    copy.set_weights(encoder.get_weights())
    return copy


def require(condition, rule, **received):
    """Raises a ValueError that names the rule and what was received, unless the condition holds."""
    if not condition:
        values = ", ".join(f"{key}={value}" for key, value in received.items())
        raise ValueError(f"{rule}. Received: {values}.")
