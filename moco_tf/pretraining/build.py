"""Builds the parts of a run from its config: encoder, mechanism, step and data."""

import functools
import inspect
import math

import keras
import tensorflow as tf

from moco_tf import addresses, arguments, backbones, distribute, strategies
from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.precision import has_amx
from moco_tf.data.two_views import color_views, two_view_dataset
from moco_tf.log import log
from moco_tf.pretraining import mechanism
from moco_tf.training import plan as plan_lib

# Fields of `config.Model` that go to the backbone, and their defaults, which need not be taken.
FIELDS = {"stem": "imagenet", "width": None, "bn_group_size": None}


def make_backbone(model):
    """The untrained backbone of a `config.Model`.

    Raises:
        ValueError: for an unknown address, or a field that the backbone's builder does not take.
    """
    make = addresses.resolve(backbones, model.backbone, "--config.model.backbone")
    parameters = inspect.signature(make).parameters.values()
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    names = [parameter.name for parameter in parameters]
    options = {}
    for name, default in FIELDS.items():
        value = getattr(model, name)
        if value == default:
            continue
        if not (takes_any or name in names):
            raise ValueError(
                f"`--config.model.{name}` must be {default} with the backbone {model.backbone}, "
                f"whose builder takes no {name}. Received: {value!r}."
            )
        options[name] = value
    field = "--config.model.backbone_options"
    known = None if takes_any else names
    more = arguments.parse(model.backbone_options, known, f"{model.backbone}'s builder", field)
    try:
        return make(**options, **more)
    except TypeError as error:
        if not more:
            raise
        raise ValueError(
            f"`{field}` must be NAME=VALUE of arguments that {model.backbone} takes and no other "
            f"field sets. Received: {','.join(model.backbone_options)}, and {error}."
        ) from error


def make_encoder(model, has_head=True):
    """The untrained `Encoder` of a `config.Model`, or one without a head."""
    backbone = make_backbone(model)
    if not has_head:
        return Encoder(backbone)
    make_head = heads.HEADS[model.head]
    values = {"dim": model.dim, "hidden": model.hidden}
    names = inspect.signature(make_head).parameters
    return Encoder(backbone, make_head(**{n: v for n, v in values.items() if n in names}))


def make_model(config, num_images=0, steps_per_epoch=1):
    """Builds and compiles the mechanism of a config; call it in the strategy's scope.

    Args:
        config: `Config`.
        num_images: number of images in the data; only a model that will be trained needs it.
        steps_per_epoch: steps in an epoch; only a model that will be trained needs it.

    Raises:
        ValueError: for a backbone that takes images of another size than `data.image_size_px`.
    """
    keras.utils.set_random_seed(config.seed)
    policy = "mixed_bfloat16" if config.mixed_bfloat16 else "float32"
    keras.mixed_precision.set_global_policy(policy)
    mechanism_class = mechanism.find(config.model.mechanism)
    encoder = make_encoder(config.model)
    encoder.require_image_size(config.data.image_size_px, "--config.data.image_size_px")
    model = mechanism_class(encoder, **mechanism.settings(config, num_images, steps_per_epoch))
    model.compile(plan_lib.make_optimizer(config, steps_per_epoch))
    model.optimizer.build(model.trainable_variables)
    return model


def describe(config, layout, source):
    """Logs how the batch lies on replicas and BN groups, and warns of unwise options."""
    log.info(
        "%d images; batch %d = %d replica(s) x %d rows, BN groups of %d",
        source.num_examples,
        layout.batch,
        layout.replicas,
        layout.replica_rows,
        layout.group_rows,
    )
    left_out = source.num_examples % layout.batch
    if left_out:
        log.info(
            "Each pass leaves out %d of the %d images, others each time, to have whole batches.",
            left_out,
            source.num_examples,
        )
    if config.model.shuffle and layout.shuffling == "none":
        log.warning(
            "There is one BN group in all, so there is nothing to shuffle, and BN statistics may "
            "tell which key belongs to which query. Set --config.model.bn_group_size, such as %d.",
            math.gcd(layout.replica_rows, max(layout.batch // 8, 1)),
        )
    queue = config.model.queue_size
    if mechanism.find(config.model.mechanism).has_queue and queue > source.num_examples:
        half = source.num_examples // 2 // config.batch_size * config.batch_size
        log.warning(
            "The queue holds %d keys of %d images, so an image is its own negative. Use a smaller "
            "one, at best at most half of the images: --config.model.queue_size=%d.",
            queue,
            source.num_examples,
            max(half, config.batch_size * (2 if config.model.symmetric else 1)),
        )
    if config.mixed_bfloat16 and not strategies.accelerators() and not has_amx():
        log.warning("bfloat16 is about ten times slower than float32 on a CPU without AMX.")
    if config.jit_compile and not strategies.accelerators():
        log.warning("On CPU the step is slower under XLA than without it.")


def make_layout(config, strategy):
    """The `BatchLayout` of a run's batch: on hosts, replicas, micro-batches and BN groups."""
    return plan_lib.make_layout(
        config,
        strategy,
        gradient_accumulation=config.gradient_accumulation,
        bn_group_size=config.model.bn_group_size,
    )


def steps_per_call(config, strategy):
    """Steps in one call to the device: by default 1, and a whole log interval on TPU."""
    on_tpu = distribute.on_tpu(strategy)
    return config.steps_per_call or (config.log_every_steps if on_tpu else 1)


def make_dataset(source, recipe, recipe_k, config, layout):
    """A function of a host's number and the first step to a dataset of `TwoViewBatch`es."""

    def dataset(host, start_step):
        return two_view_dataset(
            source,
            recipe,
            layout,
            recipe_k=recipe_k,
            host=host,
            image_size_px=config.data.image_size_px,
            seed=config.seed,
            start_step=start_step,
            shuffle=config.model.shuffle,
            augment_on=augment_on(config),
            jit_compile=config.data.jit_compile,
            shuffle_buffer=config.data.shuffle_buffer,
            shard_files=config.data.shard_files,
            with_index=mechanism.find(config.model.mechanism).needs_index,
        )

    return dataset


def augment_on(config):
    """Where the photometric half runs, "host" or "device"; "auto" prefers a GPU or TPU."""
    if config.data.augment_on != "auto":
        return config.data.augment_on
    return "device" if strategies.accelerators() else "host"


def input_remedy(config):
    """Advice for a run that waits for its input pipeline."""
    if strategies.accelerators() and augment_on(config) == "host":
        return "Leave colors and blur to the device: data.augment_on=device."
    remedy = "Give the host more cores"
    if config.data.source.startswith("synthetic:"):
        return f"{remedy}."
    if config.data.source.startswith("folder:"):
        return (
            f"{remedy}, or faster storage: TFRecord shards are read faster than a folder "
            "(python -m moco_tf convert)."
        )
    return f"{remedy}, or faster storage."


def make_step(model, recipe, recipe_k, config, strategy):
    """Makes the step of a replica: colors and blur if the device computes them, and `model.step`.

    A TPU compiles all of it. Elsewhere the photometric half is a program of its own under XLA,
    which several replicas cannot have for the step with its collectives.

    Raises:
        ValueError: for `--config.jit_compile` on several replicas.
    """
    on_tpu = distribute.on_tpu(strategy)
    replicas = distribute.num_replicas(strategy)
    if config.jit_compile and replicas > 1 and not on_tpu:
        raise ValueError(
            "`--config.jit_compile` must be false on several GPUs: XLA programs cannot hold their "
            f"collectives. Received: true, with {replicas} replicas."
        )
    photometric_q, photometric_k = recipe.photometric, recipe_k.photometric
    if not on_tpu:
        compiled = functools.partial(
            tf.function, jit_compile=config.data.jit_compile, autograph=False
        )
        photometric_q = compiled(recipe.photometric)
        photometric_k = photometric_q if recipe_k is recipe else compiled(recipe_k.photometric)

    def step(batch):
        return model.step(color_views(batch, photometric_q, photometric_k))

    if config.jit_compile and not on_tpu:
        return tf.function(step, jit_compile=True, autograph=False)
    return step
