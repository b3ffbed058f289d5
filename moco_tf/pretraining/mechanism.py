"""Contrastive mechanisms by name or import path, and their arguments from a config."""

import importlib
import inspect
import math

from moco_tf import arguments
from moco_tf.contrastive import Contrastive

MODULES = ("moco", "mechanisms", "moco_v3")
OPTIONS = "--config.model.mechanism_options"


def find(name: str) -> type[Contrastive]:
    """The mechanism of a name or an import path.

    Args:
        name: "queue" (MoCo), "end_to_end", "memory_bank", "moco_v3", the name of another mechanism
            in moco_tf/NAME.py, or an import path such as "my_module:MyMechanism".

    Raises:
        ValueError: if there is none.

    Example:
        >>> find("queue").__name__
        'MoCo'
    """
    module, colon, attribute = name.partition(":")
    if colon:
        mechanism = getattr(_import(module), attribute, None)
        if isinstance(mechanism, type) and issubclass(mechanism, Contrastive):
            return mechanism
    else:
        for place in (*MODULES, name):
            for mechanism in _mechanisms_in(f"moco_tf.{place}"):
                if mechanism.mechanism == name:
                    return mechanism
    names = [m.mechanism for place in MODULES for m in _mechanisms_in(f"moco_tf.{place}")]
    raise ValueError(
        f"`--config.model.mechanism` must be one of {', '.join(names)}, or the import path of "
        f"yours, such as my_module:MyMechanism. Received: {name!r}."
    )


def settings(config, num_images: int, steps_per_epoch: int) -> dict:
    """Arguments of the config's mechanism, by name.

    Args:
        config: checked `Config`.
        num_images: number of images in the data.
        steps_per_epoch: steps in an epoch.
    """
    mechanism = find(config.model.mechanism)
    values = {
        **_of_the_config(config),
        "num_images": num_images,
        "total_steps": config.length.total_steps(steps_per_epoch),
        **options(config),
    }
    return {name: values[name] for name in mechanism.arguments() if name in values}


def options(config) -> dict:
    """Arguments of the mechanism that `model.mechanism_options` sets, by name.

    Raises:
        ValueError: for a name that the mechanism does not take or that another field sets, a value
            of another type than the default's, or an argument without a default that is missing.
    """
    mechanism = find(config.model.mechanism)
    from_a_run = {*_of_the_config(config), "num_images", "total_steps"}
    texts = config.model.mechanism_options
    free = [name for name in mechanism.arguments() if name not in from_a_run]
    taker = f"the mechanism {config.model.mechanism}"
    values = arguments.parse(texts, free, taker, OPTIONS)
    parameters = inspect.signature(mechanism.__init__).parameters
    empty = inspect.Parameter.empty
    needed = [n for n in free if parameters[n].default is empty and n not in values]
    if needed:
        raise ValueError(
            f"`{OPTIONS}` must set {', '.join(needed)}, without which {taker} cannot be made. "
            f"Received: {','.join(texts) or 'none'}."
        )
    defaults = {n: parameters[n].default for n in free}
    defaults = {n: None if value is empty else value for n, value in defaults.items()}
    arguments.check_types(values, defaults, OPTIONS)
    return values


def chance_loss(config) -> float:
    """Loss of an encoder that cannot tell images apart, in nats: `loss_factor` times ln(K+1)."""
    return math.log(_num_negatives(config) + 1) * loss_factor(config)


def loss_factor(config) -> float:
    """What the loss of a config multiplies InfoNCE by: 2 if symmetric, and more in moco_v3."""
    factor = find(config.model.mechanism).loss_factor(config.model.temperature)
    return factor * (2 if config.model.symmetric else 1)


def chance_top1(config) -> float:
    """Share of queries that an encoder which cannot tell images apart matches: 1 / (K+1)."""
    return 1 / (_num_negatives(config) + 1)


def _num_negatives(config):
    model = config.model
    return find(model.mechanism).num_negatives(model.queue_size, config.batch_size)


def _of_the_config(config):
    """Arguments that fields of a config set, by name."""
    values = vars(config.model) | {
        "gradient_accumulation": config.gradient_accumulation,
        "seed": config.seed,
    }
    return {name: value for name, value in values.items() if not name.endswith("_options")}


def _mechanisms_in(place):
    """The mechanisms that a module defines; none if there is no such module."""
    module = _import(place)
    values = vars(module).values() if module else ()
    classes = [x for x in values if isinstance(x, type) and x.__module__ == place]
    return [x for x in classes if issubclass(x, Contrastive) and hasattr(x, "mechanism")]


def _import(name):
    """A module, or None if Python finds none of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(f"{error.name}."):
            return None
        raise  # the module exists, but one that it imports does not
