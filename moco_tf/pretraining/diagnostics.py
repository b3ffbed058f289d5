"""Diagnostics of a pre-training run: state of the queue, effect of shuffle-BN, loss at chance."""

import math

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.two_views import key_order
from moco_tf.log import log
from moco_tf.momentum import MomentumContrast
from moco_tf.pretraining.config import Config
from moco_tf.pretraining.mechanism import chance_loss, loss_factor
from moco_tf.pretraining.verdicts import COLLAPSED
from moco_tf.probes.quality import rank_of_spectrum
from moco_tf.training.round import Observer

UNTRAINED = 0.1  # share of a run in which keys may lie in as few directions as at its start


class Diagnostics(Observer):
    """Measures the state of the keys, and warns in the log if the loss stays at chance.

    Args:
        model: mechanism that is trained.
        config: `Config` of the run.
        layout: `BatchLayout` of the run.
        total: number of its steps.
    """

    def __init__(self, model: keras.Model, config: Config, layout: BatchLayout, total: int):
        self.model = model
        self.first_watched = UNTRAINED * total
        self.layout = layout
        self.state_every = config.log_every_steps
        self.chance = chance_loss(config)
        self.factor = loss_factor(config)
        self.where = layout.shuffling if config.model.shuffle else "none"
        self.num_at_chance = 0
        self.num_collapsed = 0
        self.has_logged_filling = False

    def measure(self, round):
        values = {}
        loss = float(round.losses[-1])
        if isinstance(self.model, MomentumContrast):
            values["momentum"] = float(self.model.momentum_at(round.last - 1)[0])
        # A non-finite loss is reported by `Guard`; skip it here.
        if round.last % self.state_every == 0 and math.isfinite(loss):
            if self.model.has_queue:
                values |= self.queue_state(round.last)
                if round.last >= self.first_watched:
                    self._watch_collapse(values)
            if self.model.keys_share_batch:
                values["positives_in_group"] = self.positives_in_group(round.last)
        self._explain(round.last, loss)
        return values

    def queue_state(self, step):
        """State of the queue: fill (share), mean age of keys (steps), norms, effective rank."""
        model = self.model
        new = self.layout.batch * (2 if model.symmetric else 1)
        size = model.queue_size
        filled = min(size, step * new)
        if filled == size:
            sums = _sums(model.queue)
        else:
            sums = _sums_of_newest(model.queue, model.queue_ptr, tf.constant(filled, tf.int64))
        second_moment, mean, norm = (x.numpy() / filled for x in sums)
        # Keys can be NaN a step before the loss is.
        variance = np.linalg.eigvalsh(np.nan_to_num(second_moment))
        steps, rest = divmod(filled, new)
        return {
            "queue_fill": filled / size,
            "key_age": (new * steps * (steps - 1) / 2 + rest * steps) / filled,
            "key_norm": float(norm),
            "key_mean_norm": float(np.linalg.norm(mean)),
            "key_effective_rank": rank_of_spectrum(variance),
        }

    def positives_in_group(self, step):
        """Share of keys that the last step normalized in the same BN group as their query."""
        layout, seed = self.layout, self.model.seed
        if self.where == "none":
            return 1.0
        if self.where == "step":
            order = distribute.permutation(layout.batch, [seed, step - 1]).numpy()
        else:
            orders = [key_order(layout.host_rows, seed, step - 1, h) for h in range(layout.hosts)]
            order = np.concatenate([o + h * layout.host_rows for h, o in enumerate(orders)])
        group = layout.group_rows
        return float(np.mean(order // group == np.arange(layout.batch) // group))

    def _watch_collapse(self, values):
        """Warns once if the keys of a full queue stay in few directions."""
        dim, rank = self.model.queue.shape[1], values["key_effective_rank"]
        is_collapsed = values["queue_fill"] == 1 and rank < 1 + COLLAPSED * (dim - 1)
        self.num_collapsed = self.num_collapsed + 1 if is_collapsed else 0
        if self.num_collapsed == 5:
            log.warning(
                "The keys have nearly collapsed: their effective rank is %.1f of %d dimensions. "
                "What usually helps: a lower --config.optimizer.learning_rate or a warm-up, "
                "--config.model.momentum nearer to 1, and BN groups smaller than the batch "
                "(--config.model.bn_group_size) with --config.model.shuffle=true.",
                rank,
                dim,
            )

    def _explain(self, step, loss):
        fill = self.model.filled(step, self.layout.batch)
        if self.model.has_queue and fill < 1 and not self.has_logged_filling:
            self.has_logged_filling = True
            log.info(
                "The queue is filling with this run's keys (%.0f %%). Until it is full the loss "
                "may rise: random or old keys make easy negatives. That is normal.",
                100 * fill,
            )
        at_chance = fill == 1 and abs(loss - self.chance) < 0.01 * self.chance
        self.num_at_chance = self.num_at_chance + 1 if at_chance else 0
        if self.num_at_chance == 5:
            log.warning(
                "The loss is stuck at chance level (%sln(K+1) = %.2f): the encoder cannot tell "
                "images apart. Look at the learning rate, the momentum and "
                "`key_effective_rank`.",
                "" if self.factor == 1 else f"{self.factor:g} ",
                self.chance,
            )


# On the device, where the queue is: only CxC numbers are copied to the host.
@tf.function(autograph=False)
def _sums(queue):
    """Sums over the KxC queue of outer products, CxC, of rows, C, and of their norms."""
    keys = tf.convert_to_tensor(queue)
    norms = tf.norm(keys, axis=1)
    return tf.matmul(keys, keys, transpose_a=True), tf.reduce_sum(keys, 0), tf.reduce_sum(norms)


@tf.function(autograph=False)
def _sums_of_newest(queue, pointer, filled):
    """`_sums` of the rows behind the pointer; the rest is the random start."""
    keys = tf.convert_to_tensor(queue)
    size = tf.constant(keys.shape[0], tf.int64)
    age = (tf.cast(pointer, tf.int64) - 1 - tf.range(size)) % size
    return _sums(tf.where((age < filled)[:, None], keys, 0.0))
