"""Contrastive mechanisms by name or import path, and their arguments from a config."""

import importlib
import math

from moco_tf.contrastive import Contrastive

MODULES = ("moco", "mechanisms")


def find(name: str) -> type[Contrastive]:
    """The mechanism of a name or an import path.

    Args:
        name: "queue" (MoCo), "end_to_end", "memory_bank", the name of another mechanism in
            moco_tf/NAME.py, or an import path such as "my_module:MyMechanism".

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


def settings(config, num_images: int) -> dict:
    """Arguments of the config's mechanism, by name.

    Args:
        config: checked `Config`.
        num_images: number of images in the data.
    """
    values = {
        **vars(config.model),
        "gradient_accumulation": config.gradient_accumulation,
        "seed": config.seed,
        "num_images": num_images,
    }
    return {name: values[name] for name in find(config.model.mechanism).arguments()}


def chance_loss(config) -> float:
    """Loss of an encoder that cannot tell images apart, in nats: ln(K+1), twice if symmetric."""
    model = config.model
    negatives = find(model.mechanism).num_negatives(model.queue_size, config.batch_size)
    return math.log(negatives + 1) * (2 if model.symmetric else 1)


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
