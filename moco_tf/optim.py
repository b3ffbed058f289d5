"""SGD, LARS and learning-rate schedules with the semantics of torch and the reference codes."""

import math

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("moco_tf")
class SGD(keras.optimizers.Optimizer):
    """SGD with momentum and L2 weight decay, as `torch.optim.SGD`.

    Keras' own keeps the learning rate inside the velocity and decouples the decay;
    the two part at the first change of the learning rate.

        g = gradient + weight_decay * w;  v = momentum * v + g;  w = w - learning_rate * v

    A gradient that is not finite leaves its weight and velocity as they are.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        momentum: share of the velocity kept, in [0, 1).
        weight_decay: L2 factor on every parameter, biases and BN included.
        undecayed: names of the weights of layers that have none, such as "gamma".
        factors: dict from the name of a layer to what its learning rate is multiplied by.
    """

    def __init__(
        self,
        learning_rate=0.03,
        momentum=0.9,
        weight_decay=0.0,
        factors=None,
        undecayed=(),
        name="sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.factors = dict(factors or {})
        self.undecayed = tuple(undecayed)
        self.l2 = weight_decay  # `self.weight_decay` would switch on Keras' decoupled decay

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")
            layers = [v.path.rpartition("/")[0].rpartition("/")[2] for v in variables]
            self.factor_of = [self.factors.get(layer, 1.0) for layer in layers]
            self.l2_of = [0.0 if v.name in self.undecayed else self.l2 for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        # Else l2 * w of all parameters is computed as the step starts, and held until their
        # gradients come.
        with tf.control_dependencies([gradient]):
            new = self.momentum * velocity + self.direction(gradient, variable, self.l2_of[index])
        finite = tf.reduce_all(tf.math.is_finite(gradient))
        self.assign(velocity, tf.where(finite, new, velocity))
        rate = ops.cast(learning_rate, variable.dtype) * self.factor_of[index]
        self.assign_sub(variable, tf.where(finite, rate * velocity, 0.0))

    def direction(self, gradient, variable, l2):
        """What is added to the velocity: the gradient with weight decay."""
        return gradient + l2 * variable

    def get_config(self):
        config = {"momentum": self.momentum, "weight_decay": self.l2}
        config |= {"factors": self.factors, "undecayed": self.undecayed}
        return super().get_config() | config


@keras.saving.register_keras_serializable("moco_tf")
class LARS(SGD):
    """SGD whose steps are scaled to the norm of each weight (layer-wise adaptive rate scaling).

        g = gradient + weight_decay * w;  v = momentum * v + trust_coefficient * |w| / |g| * g
        w = w - learning_rate * v

    Biases and the scales and offsets of BN, the weights of one dimension, have neither weight
    decay nor scaling. Where a norm is 0, the scaling is 1.

    Args:
        learning_rate, momentum: same as in `SGD`.
        weight_decay: L2 factor on weights of two dimensions or more.
        trust_coefficient: length of a step at learning rate 1, as a share of the weight's norm.
        factors, undecayed: same as in `SGD`.

    Example:

        model.compile(moco_tf.LARS(9.6, weight_decay=1e-6))

    Source: arXiv:1708.03888; moco/optimizer.py of facebookresearch/moco-v3.
    """

    def __init__(
        self,
        learning_rate=4.8,
        momentum=0.9,
        weight_decay=0.0,
        trust_coefficient=0.001,
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name=name, **kwargs)
        self.trust_coefficient = trust_coefficient

    def direction(self, gradient, variable, l2):
        """The decayed gradient at the weight's scale; that of a bias or of BN as it is."""
        if len(variable.shape) < 2:
            return gradient
        gradient = super().direction(gradient, variable, l2)
        weight_norm, norm = tf.norm(tf.convert_to_tensor(variable)), tf.norm(gradient)
        has_norms = (weight_norm > 0) & (norm > 0)
        scale = self.trust_coefficient * weight_norm / tf.where(has_norms, norm, 1.0)
        return tf.where(has_norms, scale, 1.0) * gradient

    def get_config(self):
        return super().get_config() | {"trust_coefficient": self.trust_coefficient}


@keras.saving.register_keras_serializable("moco_tf")
class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from `base` to 0, changing once an epoch as the reference does.

    Args:
        base: learning rate of epoch 0.
        epochs: epochs until 0 is reached.
        steps_per_epoch: optimizer steps in an epoch.
        first_epoch: number of the first epoch; 1 in the CIFAR-10 demo, whose
            first epoch is thus already below `base`.
        warmup_steps: length of a linear rise, which does not shift the cosine.
        warmup_factor: share of the rate at step 0 of the rise.
        start_step: step at which the cosine starts, such as the end of the rise.
    """

    def __init__(
        self,
        base,
        epochs,
        steps_per_epoch,
        first_epoch=0,
        warmup_steps=0,
        warmup_factor=0.001,
        start_step=0,
    ):
        self.base, self.epochs, self.steps_per_epoch = base, epochs, steps_per_epoch
        self.first_epoch = first_epoch
        self.warmup_steps, self.warmup_factor = warmup_steps, warmup_factor
        self.start_step = start_step

    def __call__(self, step):
        passed = tf.maximum(step - self.start_step, 0)
        epoch = tf.cast(passed // self.steps_per_epoch + self.first_epoch, tf.float32)
        rate = 0.5 * self.base * (1 + tf.cos(math.pi * epoch / self.epochs))
        return rate * _warm_up(step, self.warmup_steps, self.warmup_factor)

    def get_config(self):
        return dict(vars(self))


@keras.saving.register_keras_serializable("moco_tf")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """`base` times `factor` for each milestone passed.

    Args:
        base: learning rate at the start.
        milestones: optimizer steps from which on the rate is lower.
        factor: factor of the rate at each milestone.
        warmup_steps: length of a linear rise.
        warmup_factor: share of the rate at step 0 of the rise.
    """

    def __init__(self, base, milestones, factor=0.1, warmup_steps=0, warmup_factor=0.001):
        self.base, self.milestones, self.factor = base, tuple(milestones), factor
        self.warmup_steps, self.warmup_factor = warmup_steps, warmup_factor

    def __call__(self, step):
        passed = tf.reduce_sum(
            tf.cast(step >= tf.constant(self.milestones, step.dtype), tf.float32)
        )
        rate = self.base * self.factor**passed
        return rate * _warm_up(step, self.warmup_steps, self.warmup_factor)

    def get_config(self):
        return dict(vars(self))


def _warm_up(step, warmup_steps, warmup_factor):
    """Share of the rate, from `warmup_factor` at step 0 to 1 at `warmup_steps`.

    Source: detectron2/solver/lr_scheduler.py, linear.
    """
    if not warmup_steps:
        return 1.0
    passed = tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)
    return warmup_factor * (1.0 - passed) + passed
