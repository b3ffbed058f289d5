"""What an ablation is: a run, and its variants, which differ in a few fields.

A file in configs/ablations/ sets title, base and runs; `--config.base.field=value` overrides
the base.
"""

import copy
import re
from dataclasses import dataclass

from moco_tf import schema
from moco_tf.pretraining import config as config_lib
from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


@dataclass
class Ablation:
    """Several runs to be seen side by side."""

    title: str
    base: Config
    runs: dict  # name of a variant, which is its folder's -> overrides: {"model.momentum": 0.9}


def variants(ablation):
    """The whole configs of an ablation.

    Returns:
        Dict of checked `Config` by the variant's name.

    Raises:
        ValueError: for a name or a field that cannot be, with the variant.
    """
    made = {}
    for name, overrides in ablation.runs.items():
        if not re.fullmatch(r"[\w=.-]*\w", name):
            raise ValueError(
                "The name of a variant must be letters, digits, '_', '=', '.' and '-', for it is "
                f"a folder's too. Received: {name!r}."
            )
        config = copy.deepcopy(ablation.base)
        try:
            for field, value in overrides.items():
                schema.override(config, field, value)
            config_lib.check(config)
        except ValueError as error:
            raise ValueError(f"Variant {name!r}: {error}") from None
        made[name] = config
    return made


def base(data):
    """The run that the files in configs/ablations vary: asymmetric loss, a queue of many batches.

    Args:
        data: "shapes", generated images and minutes on a CPU, or "cifar10", the recipe of
            configs/cifar10_demo.py.

    Raises:
        KeyError: for other data. (Of a ValueError in a config file ml_collections shows the trace.)
    """
    model = {"backbone": "resnet:resnet18", "stem": "cifar", "momentum": 0.99, "temperature": 0.1}
    if data == "shapes":
        return Config(
            data=Data(source="synthetic:shapes", recipe="moco:v2", image_size_px=32),
            model=Model(width=16, head="mlp", dim=64, queue_size=2048, bn_group_size=16, **model),
            optimizer=Optimizer(learning_rate=0.12, weight_decay=5e-4),
            monitor=Monitor(every_epochs=4, resize_px=32),
            batch_size=64,
            epochs=20,
            log_every_steps=16,
            checkpoint_every_steps=320,
        )
    if data == "cifar10":
        return Config(
            data=Data(source="tfds:cifar10", recipe="moco:cifar10", image_size_px=32),
            model=Model(head="linear", queue_size=4096, bn_group_size=64, **model),
            optimizer=Optimizer(learning_rate=0.03, weight_decay=5e-4, first_epoch=1),
            monitor=Monitor(features="projection", every_epochs=10, resize_px=32),
            batch_size=512,
            epochs=200,
            log_every_steps=8,
            checkpoint_every_steps=97,
        )
    raise KeyError(
        f"The data of these ablations must be shapes or cifar10. Received: {data!r}. Use "
        "--config=FILE or --config=FILE:cifar10."
    )
