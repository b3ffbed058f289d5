"""Keras' compile, fit, evaluate, train_on_batch and summary for models of two views."""

import keras
import tensorflow as tf

from moco_tf import distribute, fit_data


class Trainer(keras.Model):
    """A Keras model whose loss is its own: `step` trains on a batch, `score` measures one.

    Args:
        **kwargs: same as in `keras.Model`.

    Attributes:
        METRICS: names of what `step` and `score` return.
        encoder_q: `keras.Model` that is trained for later use.
    """

    METRICS: tuple[str, ...]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._means = [keras.metrics.Mean(name) for name in self.METRICS]
        self._rows = None  # of a global batch of fit

    def step(self, batch):
        """One update by a batch: dict of `METRICS`."""
        raise NotImplementedError(f"{type(self).__name__} must define `step`.")

    def score(self, batch):
        """`METRICS` of a batch in inference mode, which changes nothing."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `score` to be evaluated. Leave validation_data out."
        )

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        auto_scale_loss=True,
        **kwargs,
    ):
        """Same as in Keras, without losses and metrics.

        Args:
            optimizer: Keras optimizer or its name.
            loss, loss_weights, metrics, weighted_metrics: must be left out.
            auto_scale_loss: whether the loss is scaled if the encoder computes in float16.
            **kwargs: run_eagerly, steps_per_execution and jit_compile of Keras.

        Raises:
            ValueError: for a loss or metrics.
        """
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        given = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        if given:
            raise ValueError(
                f"{type(self).__name__} computes its own loss and reports "
                f"{', '.join(self.METRICS)}: compile it with an optimizer alone. Received: "
                f"{', '.join(given)}. Scores on labelled images come from the callback "
                "`moco_tf.probes.monitor.Monitor`."
            )
        optimizer = keras.optimizers.get(optimizer)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and not scaled and _computes_in_float16(self.encoder_q):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer, auto_scale_loss=auto_scale_loss, **kwargs)

    def compile_from_config(self, config):
        """Compiles a model that was read from a file."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_compile_config(self):
        """What `compile_from_config` needs."""
        return super().get_compile_config()

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """Same as in Keras, on pairs of views.

        Args:
            x: `tf.data.Dataset`, PyDataset or generator of `(x_q, x_k)`, batches of views of the
                same images, NxHxWxc, all of one size; or an array of all query views.
            y: array of all key views, if x is an array.
            batch_size: rows of a batch, if x is an array. Rows that fill no batch are left out.
            epochs, verbose, callbacks: same as in Keras.
            validation_split: share of the arrays' last rows to validate on.
            validation_data: pairs of views to measure loss, top1 and top5 on after each epoch.
            shuffle: whether arrays are shuffled before each epoch.
            class_weight, sample_weight: must be left out.
            **kwargs: other arguments of Keras.

        Raises:
            ValueError: for data of another structure.
        """
        if class_weight is not None or sample_weight is not None:
            raise ValueError(
                "All images weigh the same: leave class_weight and sample_weight out of fit."
            )
        if validation_split and validation_data is None:
            x, y, validation_data = _split(x, y, validation_split)
        if validation_data is not None and type(self).score is Trainer.score:
            self.score(None)  # before the first epoch rather than after it
        x, rows = fit_data.full_batches(x, y, batch_size, shuffle)
        self._set_rows(rows)
        shuffle = shuffle and getattr(x, "num_batches", None) is not None  # a PyDataset's batches
        return super().fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            validation_batch_size=kwargs.pop("validation_batch_size", batch_size),
            shuffle=shuffle,
            **kwargs,
        )

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step on `(x, y)`, query and key views of the same images: arrays NxHxWxc."""
        self._set_rows(len(next(iter(fit_data.pair((x, y)).values()))))
        return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    def train_step(self, data):
        """`step` for `fit`: returns the running means over the epoch."""
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        rows = self._rows and self._rows // distribute.num_replicas()
        data = fit_data.with_rows(data, rows)
        # Where an iterator ends, Keras starts a step that gets no batch: nothing may move in it.
        with tf.control_dependencies([x for x in tf.nest.flatten(data) if tf.is_tensor(x)]):
            logs = self.step(data)
        for mean in self._means:
            mean.update_state(logs[mean.name])
        return self.get_metrics_result()

    def test_step(self, data):
        """`score` for `evaluate`: returns the running means over all rows."""
        batch = fit_data.pair(data)
        logs = self.score(batch)
        rows = tf.shape(batch["x_q"])[0]
        for mean in self._means:
            # The last batch may leave a replica without rows.
            value = tf.where(rows > 0, logs[mean.name], 0.0)
            mean.update_state(value, sample_weight=tf.cast(rows, tf.float32))
        return self.get_metrics_result()

    def call(self, images, training=False):
        """Embeddings of the query encoder, NxC, not normalized."""
        return self.encoder_q(images, training=training)

    @property
    def metrics(self):
        return self._means

    @property
    def trained_networks(self) -> list[keras.Model]:
        """Networks that the optimizer trains; a subclass may have others beside the encoder."""
        return [self.encoder_q]

    @property
    def trainable_variables(self):
        """Those of the trained networks: all that the optimizer may change."""
        return [v for network in self.trained_networks for v in network.trainable_variables]

    @property
    def non_trainable_variables(self):
        """All others, such as those of a key encoder and a queue."""
        trained = {id(v) for v in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables

    def _set_rows(self, rows):
        """Sets the rows of a batch; steps that were compiled for others are forgotten."""
        if rows != self._rows:
            self.train_function = None
        self._rows = rows


def _computes_in_float16(layer):
    parts = getattr(layer, "layers", ())
    return layer.compute_dtype == "float16" or any(map(_computes_in_float16, parts))


def _split(x, y, share):
    """Arrays without their last rows, and those: `(x, y, (validation x, validation y))`."""
    if not fit_data.is_array_like(x, y):
        raise ValueError(
            "`validation_split` needs arrays. Received: "
            f"{type(x).__name__}. Give two datasets, the second as `validation_data`."
        )
    arrays = fit_data.pair(x if y is None else (x, y))
    kept = round(len(next(iter(arrays.values()))) * (1 - share))
    training = {name: array[:kept] for name, array in arrays.items()}
    return training, None, ({name: array[kept:] for name, array in arrays.items()},)
