"""Config of a pre-training run: typed fields, checked before any work.

A file in configs/ sets fields; `--config.field=value` overrides them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from moco_tf import schema
from moco_tf.backbones.heads import HEADS
from moco_tf.data import image_headers, image_ops
from moco_tf.pretraining import mechanism
from moco_tf.schema import option, require
from moco_tf.training.config import Length, Optimizer, check_optimizer, length_of


@dataclass
class Data:
    """Source and augmentation of the images."""

    source: str = option("synthetic:shapes", help="address, see moco_tf/data/sources")
    data_dir: str | None = option(None, help="folder of prepared TFDS data sets; none: TFDS' own")
    recipe: str = option(
        "moco:v2", help="augmentation, see moco_tf/data/recipes, or my_module:name"
    )
    recipe_k: str | None = option(None, help="augmentation of the key view; none: data.recipe")
    image_size_px: int = option(224, at_least=1, help="side of the views")
    num_examples: int | None = option(
        None, at_least=1, help="records of tfrecord:; none counts them"
    )
    augment_on: str = option(
        "auto",
        choices=("auto", "host", "device"),
        help="where colors and blur are computed; auto: on the device if it is a GPU or TPU",
    )
    jit_compile: bool = option(True, help="colors and blur compiled by XLA, on TPU always")
    max_bad_fraction: float = option(
        0.01, at_least=0, at_most=1, help="share of undecodable images above which a run stops"
    )
    max_pixels: int = option(
        image_headers.MAX_PIXELS, at_least=1, help="larger images count as undecodable"
    )
    white: int = option(
        image_ops.WHITE,
        at_least=1,
        at_most=image_ops.WHITE,
        help="value of 16-bit PNG files that becomes white, such as 4095 for 12 bits",
    )
    shuffle_buffer: int = option(10_000, at_least=1, help="records, for sources that are streamed")
    shard_files: bool = option(
        False, help="each host reads files of its own; the order then depends on the hosts"
    )

    @property
    def decode(self) -> Callable:
        """`image_ops.decode` by these fields."""
        return functools.partial(image_ops.decode, max_pixels=self.max_pixels, white=self.white)


@dataclass
class Model:
    """Encoder and MoCo. Source: v1 section 3, v2 table 1."""

    mechanism: str = option(
        "queue",
        help="where keys come from: queue (MoCo v1 and v2), end_to_end, memory_bank (v1 figure 2), "
        "moco_v3, or the import path of yours, my_module:MyMechanism",
    )
    mechanism_options: tuple[str, ...] = option(
        (),
        help="arguments of the mechanism that no other field sets, such as predictor_layers=0 or "
        "momentum_schedule=constant of moco_v3",
    )
    backbone: str = option(
        "resnet:resnet50", help="address, see moco_tf/backbones/resnet.py and vit.py"
    )
    backbone_options: tuple[str, ...] = option(
        (),
        help="further arguments of the backbone's builder, such as depth=4,patch_px=8 of a ViT or "
        "synchronized_bn=true of a ResNet",
    )
    stem: str = option(
        "imagenet", choices=("imagenet", "cifar"), help="cifar: 3x3, stride 1, no max-pool"
    )
    width: int | None = option(
        None,
        at_least=1,
        help="channels of a ResNet's first stage or a ViT's tokens; none: the backbone's own",
    )
    head: str = option(
        "mlp",
        choices=tuple(HEADS),
        help="linear (v1), mlp (v2), mlp_bn2 or mlp_bn3 (v3, for a ResNet or a transformer)",
    )
    hidden: int | None = option(
        None,
        at_least=1,
        help="units in the hidden layers of an MLP; none: as many as it has inputs",
    )
    dim: int = option(128, at_least=1, help="length of the embeddings")
    queue_size: int = option(
        65536, at_least=1, help="K, number of negatives; end_to_end takes them from the batch"
    )
    momentum: float = option(0.999, at_least=0, at_most=1, help="m, momentum of the key encoder")
    temperature: float = option(0.2, above=0, help="tau, temperature of the logits")
    symmetric: bool = option(False, help="both views serve as query")
    shuffle: bool = option(True, help="use shuffle-BN")
    bn_group_size: int | None = option(
        None, at_least=1, help="rows that share BN statistics; none: all rows of a replica"
    )


@dataclass
class Monitor:
    """kNN accuracy of the encoder during training. Source: the CIFAR-10 demo."""

    source: str = option(
        "auto", help="BANK,QUERIES (two addresses), auto (the data's own splits) or off"
    )
    every_epochs: int | None = option(
        1, at_least=1, help="epochs between measurements, also before the first; none: never"
    )
    every_steps: int | None = option(
        None, at_least=1, help="steps between measurements instead, if given"
    )
    features: str = option(
        "backbone", choices=("backbone", "projection"), help="features before or after the head"
    )
    neighbours: int = option(200, at_least=1, help="k")
    temperature: float = option(0.1, above=0, help="temperature of the votes")
    linear: bool = option(False, help="train a linear probe, too")
    resize_px: int | None = option(
        None, at_least=1, help="short side before the center crop; none: 8/7 of the image size"
    )

    @property
    def every(self) -> Length | None:
        """Time between measurements; None: never."""
        if self.source == "off" or (self.every_steps is None and self.every_epochs is None):
            return None
        return length_of(self.every_epochs, self.every_steps)


@dataclass
class Config:
    """A pre-training run."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    monitor: Monitor = field(default_factory=Monitor)

    seed: int = option(0, at_least=0, help="seed of weights, data order and augmentation")
    batch_size: int = option(256, at_least=1, help="rows of the global batch, over all replicas")
    epochs: int | None = option(200, at_least=1, help="length of the run and of the schedule")
    steps: int | None = option(
        None, at_least=1, help="length in steps instead, for data without end"
    )
    stop_after_steps: int | None = option(
        None, at_least=1, help="end early, with the schedule of the whole run"
    )
    gradient_accumulation: int = option(1, at_least=1, help="micro-batches per step")
    mixed_bfloat16: bool = option(False, help="compute in bfloat16; for GPU, TPU and CPUs with AMX")
    jit_compile: bool = option(
        False, help="compile the whole step by XLA, on one GPU; on TPU it always is"
    )
    deterministic: bool = option(False, help="bitwise repeatable ops, slower on GPU")
    steps_per_call: int | None = option(
        None,
        at_least=1,
        help="steps in one call to the device; none: 1, and log_every_steps on TPU",
    )
    max_skipped_steps: int = option(
        0, at_least=0, help="limit of skipped steps, whose loss or gradient is not finite"
    )
    log_every_steps: int = option(20, at_least=1, help="steps between lines of the log")
    checkpoint_every_steps: int = option(1000, at_least=1, help="steps between checkpoints")
    keep_checkpoints: int = option(
        3, at_least=2, help="newest checkpoints to keep; each is read back after it is written"
    )
    profile_steps: tuple[int, int] | None = option(
        None, at_least=1, help="first and last step to profile for TensorBoard"
    )

    @property
    def length(self) -> Length:
        """`Length` of the run."""
        return length_of(self.epochs, self.steps)


def check(config: Config):
    """Checks every field of a `Config`.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    schema.check(config)
    require(
        config,
        "profile_steps",
        lambda v: v is None or v[0] <= v[1],
        "the first and the last step, such as 10,20, or none",
    )
    check_optimizer(config)
    _check_pairs(config)


def _check_pairs(config):
    size = config.data.image_size_px
    require(
        config,
        "monitor.resize_px",
        lambda v: v is None or v >= size,
        f"none, or at least {size}, the image size",
    )
    _check_mechanism(config)
    require(
        config,
        "batch_size",
        lambda v: v % config.gradient_accumulation == 0,
        f"a multiple of gradient_accumulation={config.gradient_accumulation}",
    )


def from_json(values: dict) -> Config:
    """The `Config` of a run's config.json, including one of version 0.1.0.

    Args:
        values: content of config.json.

    Raises:
        ValueError: for an unknown field.
    """
    values = dict(values)
    version = values.pop("moco_tf", None)  # 0.1.0 wrote none
    return schema.from_dict(Config, values, zeros_are_none=version is None)


def _check_mechanism(config):
    """Checks the rules of the config's mechanism."""
    mechanism_class = mechanism.find(config.model.mechanism)
    keys = config.batch_size * (2 if config.model.symmetric else 1)
    if mechanism_class.has_queue:
        require(
            config,
            "model.queue_size",
            lambda v: v >= keys,
            f"at least the new keys of a step, {keys} (the batch, twice it when symmetric)",
        )
    neutral = {"model.symmetric": False, "model.shuffle": False, "gradient_accumulation": 1}
    for name, value in neutral.items():
        if name.removeprefix("model.") not in mechanism_class.arguments():
            text = f'{str(value).lower()} with model.mechanism="{config.model.mechanism}"'
            require(config, name, lambda v, value=value: v == value, text)
    mechanism.options(config)
