"""Linear classifier on a backbone, trained on frozen features or end to end."""

import keras
import tensorflow as tf

from moco_tf import distribute, updates


class Classifier(keras.Model):
    """Trains a linear classifier on a backbone by cross-entropy.

    Args:
        backbone: `keras.Model` from images to NxC features.
        num_classes: number of classes K.
        frozen: do not change the backbone, and run it in inference mode, including BN.
        seed: seed of the classifier's initial weights, N(0, .01); the bias starts at 0.

    Source: main_lincls.py.
    """

    def __init__(self, backbone, num_classes, frozen, seed=0):
        super().__init__()
        self.backbone, self.frozen = backbone, frozen
        self.fc = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01, seed=seed),
            dtype="float32",
            name="fc",
        )
        images = keras.Input(backbone.input_shape[1:], name="images")
        features = backbone(images)
        logits = self.fc(features)
        self.network = keras.Model(images, logits, name="classifier")
        self.features_and_logits = keras.Model(images, [features, logits])
        self.built = True

    def step(self, batch):
        """One update; the training loop calls it.

        Args:
            batch: dict of x: NxHxWxc images, and label: int64 N.

        Returns:
            Dict of this replica's loss (nats), and share in [0, 1] of images whose class has the
            highest (`top1`) or one of the five highest (`top5`) logits.
        """
        x, label = batch["x"], batch["label"]
        # ReLU turns NaN into 0 on most devices, and a frozen backbone has no gradient to tell.
        nothing = updates.nan_unless_finite([x])
        if self.frozen:
            x = self.backbone(x, training=False)
        statistics = [] if self.frozen else self.backbone.non_trainable_variables

        def loss_fn():
            logits = self.fc(x if self.frozen else self.backbone(x, training=True))  # NxK
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
            label_logit = tf.gather(logits, label, batch_dims=1)  # N
            # "Not below" rather than "above": a NaN must not pass for a hit.
            rank = tf.math.count_nonzero(~(logits <= label_logit[:, None]), axis=1)
            return {
                "loss": tf.reduce_mean(losses) + nothing,
                "top1": tf.reduce_mean(tf.cast(rank < 1, tf.float32)),
                "top5": tf.reduce_mean(tf.cast(rank < 5, tf.float32)),
            }

        logs, _ = updates.minimize(self.optimizer, loss_fn, self.trainable_variables, statistics)
        # Inference needs one set of BN statistics, which replicas have of their own rows.
        distribute.average(statistics)
        return logs

    def call(self, images, training=False):
        """Logits, NxK."""
        return self.network(images, training=training)

    @property
    def trainable_variables(self):
        """Variables of the classifier, and of the backbone unless it is frozen."""
        return (self.fc if self.frozen else self.network).trainable_variables
