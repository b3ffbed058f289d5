"""One optimizer step, or none at all where the loss or a gradient is not finite on any replica."""

import keras
import tensorflow as tf

from moco_tf import distribute, optim


def minimize(optimizer, loss_fn, variables, statistics=()):
    """One optimizer step on a loss, or none at all if anything in it is not finite.

    Args:
        optimizer: built `keras.optimizers.Optimizer`.
        loss_fn: function without arguments to a dict of tensors with "loss", the mean over this
            replica's rows.
        variables: Keras variables to train.
        statistics: variables that `loss_fn` moves, such as BN statistics.

    Returns:
        `(logs, counts)`: the dict, with a NaN loss if the step was skipped on all replicas; and a
        bool scalar, the same on all replicas, false if it was.
    """
    old_values = values(statistics)
    steps, logs = gradients(optimizer, loss_fn, variables)
    logs, counts = apply_if_finite(optimizer, steps, variables, logs)
    restore_unless(counts, statistics, old_values)
    return logs, counts


def gradients(optimizer, loss_fn, variables, micro_batches=1):
    """Gradients of a loss, whose sums over replicas and micro-batches are those of the mean loss.

    An optimizer with a loss scale gets them multiplied by it, as it expects.

    Args:
        optimizer: same as in `minimize`.
        loss_fn: same as in `minimize`.
        variables: Keras variables.
        micro_batches: number of calls whose gradients will be added up.

    Returns:
        `(list of gradients, dict of loss_fn)`.
    """
    with tf.GradientTape() as tape:
        logs = loss_fn()
        # The optimizer adds up the gradients of the replicas.
        share = logs["loss"] / (micro_batches * distribute.num_replicas())
        scaled = optimizer.scale_loss(share)
    return tape.gradient(scaled, variables), logs


def apply_if_finite(optimizer, gradients, variables, logs):
    """Applies gradients, unless the loss or a gradient of any replica is not finite.

    Then all gradients become NaN, and so does the loss in `logs`. `optim.SGD` skips such gradients,
    and so does a `LossScaleOptimizer`, which then halves its scale. Any other optimizer's step is
    taken back, which costs a copy of its variables and the weights.

    With a loss scale, gradients that overflow are no fault: a finite loss stays as it is in `logs`.

    Returns:
        Same as `minimize`.
    """
    guarded = []
    has_scale = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if not (has_scale or isinstance(optimizer, optim.SGD)):
        state = [v for v in optimizer.variables if v is not optimizer.iterations]
        guarded = [*variables, *state]
    old_values = values(guarded)
    finite = tf.equal(nan_unless_finite([logs["loss"], *gradients]), 0.0)
    # A mean of ones over, say, 12 TPU cores is not 1 in float32; one of zeros is 0.
    counts = tf.equal(distribute.mean(1.0 - tf.cast(finite, tf.float32)), 0.0)
    nothing = tf.where(counts, 0.0, float("nan"))
    gradients = [g + tf.cast(nothing, g.dtype) for g in gradients]
    optimizer.apply(gradients, variables)
    restore_unless(counts, guarded, old_values)
    return logs if has_scale else logs | {"loss": logs["loss"] + nothing}, counts


def restore_unless(counts, variables, old_values):
    """Gives variables their values from before, see `values`, unless the step counts."""
    for variable, value in zip(variables, old_values, strict=True):
        variable.assign(tf.where(counts, variable.value, value))


def values(variables):
    """The present values of variables, which later assignments do not change: list of tensors."""
    return [tf.identity(v.value) for v in variables]


def assign(variables, values):
    """Sets variables to values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def nan_unless_finite(tensors):
    """A scalar to add to what must not look good: 0, or NaN if any tensor is not finite."""
    floats = [x for x in tensors if tf.as_dtype(x.dtype).is_floating]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in floats])
    return tf.where(finite, 0.0, float("nan"))
