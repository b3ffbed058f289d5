"""Batch normalization on the fused op, with torch's conventions and groups."""

import keras
import tensorflow as tf

from moco_tf import distribute


@keras.saving.register_keras_serializable("moco_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalization of NxHxWxC maps or NxC features, as torch's BatchNorm2d and 1d do it.

    Runs on the fused op, several times faster on CPU than Keras' own layer.
    The running variance is the unbiased one, torch's rule.

    With `group_size`, consecutive rows of the batch are normalized in groups:
    group g holds rows [g * group_size, (g + 1) * group_size). So one large
    device reproduces the statistics of many small ones, which shuffle-BN
    (MoCo v1, section 3.3) needs. Running statistics are the mean over groups.

    Args:
        group_size: rows in a group, or None for one group per replica.
        synchronized: the statistics are those of all replicas' rows together; without groups.
        momentum: share of the old running statistics kept at each update
            (0.9 here is torch's 0.1).
        epsilon: added to the variance.
        affine: whether there are a trained scale (gamma) and offset (beta).

    Raises:
        ValueError: in training, when the batch is not a whole number of groups.

    Source: torch.nn.BatchNorm2d; groups as SplitBatchNorm of MoCo's CIFAR-10
    demo, but of consecutive rather than interleaved rows.
    """

    def __init__(
        self,
        group_size=None,
        momentum=0.9,
        epsilon=1e-5,
        synchronized=False,
        affine=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if synchronized and group_size:
            raise ValueError(
                "`synchronized` needs `group_size` None. Received: "
                f"group_size={group_size}, synchronized=True."
            )
        self.group_size = group_size
        self.synchronized = synchronized
        self.momentum = momentum
        self.epsilon = epsilon
        self.affine = affine

    def build(self, input_shape):
        def weight(name, initializer, trainable):
            return self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                initializer=initializer,
                trainable=trainable,
                dtype="float32",  # statistics keep full precision under mixed_bfloat16
                autocast=False,
            )

        self.gamma = weight("gamma", "ones", True) if self.affine else None
        self.beta = weight("beta", "zeros", True) if self.affine else None
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, x, training=False):
        if len(x.shape) == 2:
            return self._normalize(x[:, None, None], training)[:, 0, 0]
        return self._normalize(x, training)

    def _normalize(self, x, training):
        if not training:
            return self._fused(x, self.moving_mean, self.moving_variance, training=False)[0]
        if not self.trainable:
            return self._frozen(x)

        if self.synchronized and distribute.num_replicas() > 1:
            return self._over_replicas(x)
        groups = self._num_groups(x.shape[0])
        outputs = [self._fused(part, [], [], training=True) for part in tf.split(x, groups)]
        y, mean, variance = zip(*outputs, strict=True)
        # Not `add_n`: it starts with whichever tensor is free to be overwritten, so under load its
        # rounding changes from run to run.
        self._update(self.moving_mean, tf.reduce_sum(tf.stack(mean), axis=0) / groups)
        self._update(self.moving_variance, tf.reduce_sum(tf.stack(variance), axis=0) / groups)
        return tf.concat(y, axis=0)

    def _frozen(self, x):
        """Multiplies and adds: the fused op has no deterministic gradient on GPU in inference."""
        gamma, beta = self._affine()
        scale = gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        y = tf.cast(x, tf.float32) * scale + (beta - self.moving_mean * scale)
        return tf.cast(y, x.dtype)

    def _over_replicas(self, x):
        """Normalizes by the statistics of all replicas, in one collective."""
        y = tf.cast(x, tf.float32)
        moments = tf.stack(
            [tf.reduce_mean(y, axis=[0, 1, 2]), tf.reduce_mean(y * y, axis=[0, 1, 2])]
        )
        mean, square = tf.unstack(distribute.mean(moments))
        variance = tf.maximum(square - mean * mean, 0)
        count = tf.cast(tf.size(y[..., 0]), tf.float32) * distribute.num_replicas()
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance * count / (count - 1))
        gamma, beta = self._affine()
        y = tf.nn.batch_normalization(y, mean, variance, beta, gamma, self.epsilon)
        return tf.cast(y, x.dtype)

    def _affine(self):
        """Scale and offset; those of a layer without them are 1 and 0."""
        if self.affine:
            return self.gamma, self.beta
        return tf.ones(self.moving_mean.shape), tf.zeros(self.moving_mean.shape)

    def _num_groups(self, batch):
        if self.group_size is None:
            return 1
        if batch is None or batch % self.group_size:
            raise ValueError(
                "The rows given to a BatchNorm with groups must be a known multiple of "
                f"`group_size`. Received: {batch} rows, group_size={self.group_size}. Use a batch "
                "with drop_remainder=True, and a size per replica (and micro-batch) that divides."
            )
        return batch // self.group_size

    def _fused(self, x, mean, variance, training):
        gamma, beta = self._affine()
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        return y, mean, variance

    def _update(self, moving, value):
        new = self.momentum * moving + (1 - self.momentum) * value
        moving.assign(tf.where(tf.math.is_finite(new), new, moving))  # a NaN would stay for ever

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "group_size": self.group_size,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
            "affine": self.affine,
        }
