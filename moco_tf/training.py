"""One training loop for every strategy, driving Keras callbacks.

Steps run in rounds that end where something has to be seen: a log line, a checkpoint, the end
of an epoch. Only there does the host wait for the device. Callbacks then get
`on_train_batch_end` for each step of the round; the model is in the state of the last one.
"""

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf

from moco_tf import addresses, backbones, bad_images, distribute, optim
from moco_tf import config as config_lib
from moco_tf.backbones import heads
from moco_tf.input_pipeline import Layout, training_dataset
from moco_tf.log import log
from moco_tf.moco import MoCo

NAMES = ("loss", "top1", "top5")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Lengths of a run, in steps.

    Attributes:
        steps_per_epoch: whole batches in the data.
        total: length of the schedule.
        stop: where this run ends, at most `total`.
        monitor_every: 0 for never.
    """

    steps_per_epoch: int
    total: int
    stop: int
    monitor_every: int


def make_layout(config, strategy):
    """The `Layout` of the config's batch on the strategy's hosts and replicas.

    Raises:
        ValueError: if it does not divide, with a batch that would.
    """
    hosts, replicas = distribute.num_hosts(strategy), strategy.num_replicas_in_sync
    error = config_lib.replica_layout_errors(config, hosts, replicas)
    if error:
        raise ValueError(error)
    micro_batch = config.batch_size // replicas // config.gradient_accumulation
    group = config.model.bn_group_size or micro_batch
    return Layout(config.batch_size, hosts, replicas, group)


def make_plan(config, num_examples):
    """The `Plan` of a config on data of `num_examples` images."""
    steps_per_epoch = num_examples // config.batch_size
    if not steps_per_epoch:
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{num_examples} images, batch_size={config.batch_size}. Lower `config.batch_size`."
        )
    total = config.steps or config.epochs * steps_per_epoch
    every = config.monitor.every_steps or config.monitor.every_epochs * steps_per_epoch
    stop = min(config.stop_after_steps or total, total)
    return Plan(steps_per_epoch, total, stop, 0 if config.monitor.source == "off" else every)


def make_model(config, plan):
    """Builds and compiles `MoCo`; call it in the strategy's scope."""
    keras.utils.set_random_seed(config.seed)
    policy = "mixed_bfloat16" if config.mixed_bfloat16 else "float32"
    keras.mixed_precision.set_global_policy(policy)
    m = config.model
    make_backbone = addresses.resolve(backbones, m.backbone, "model.backbone")
    width = {"width": m.width} if m.width else {}
    backbone = make_backbone(stem=m.stem, bn_group_size=m.bn_group_size or None, **width)
    head = {"linear": heads.linear, "mlp": heads.mlp}[m.head]
    model = MoCo(
        heads.encoder(backbone, head, m.dim),
        queue_size=m.queue_size,
        momentum=m.momentum,
        temperature=m.temperature,
        symmetric=m.symmetric,
        shuffle=m.shuffle,
        gradient_accumulation=config.gradient_accumulation,
        seed=config.seed,
    )
    model.compile(
        optim.SGD(
            make_schedule(config, plan),
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        )
    )
    model.optimizer.build(model.trainable_variables)
    return model


def make_schedule(config, plan):
    """The learning-rate schedule, linearly scaled with the batch (arXiv:1706.02677)."""
    o = config.optimizer
    base = o.learning_rate * config.batch_size / o.reference_batch
    epoch = plan.steps_per_epoch
    warmup = o.warmup_steps if config.steps else round(o.warmup_epochs * epoch)
    if o.schedule == "step":
        milestones = o.milestones_steps or [e * epoch for e in o.milestones_epochs]
        return optim.Steps(base, milestones, o.factor, warmup)
    if config.steps:  # no epochs: the rate changes every step
        return optim.Cosine(base, config.steps, 1, warmup_steps=warmup)
    return optim.Cosine(base, config.epochs, epoch, o.first_epoch, warmup)


def describe(config, layout, source, plan, start):
    """Logs what is about to run, and what about it is unwise."""
    log.info(
        "%d images; batch %d = %d replica(s) x %d rows, BN groups of %d; %d steps an epoch, %d in "
        "all; %s",
        source.num_examples,
        layout.batch,
        layout.replicas,
        layout.replica_rows,
        layout.group_rows,
        plan.steps_per_epoch,
        plan.total,
        f"resuming after step {start}" if start else "from the start",
    )
    if config.model.shuffle and layout.shuffling == "none":
        log.warning(
            "There is one BN group in all, so there is nothing to shuffle, and BN statistics may "
            "tell which key belongs to which query. Set config.model.bn_group_size, such as %d.",
            max(layout.batch // 8, 1),
        )
    if config.mixed_bfloat16 and not _accelerators():
        log.warning("bfloat16 is about ten times slower than float32 on CPU.")


def steps_per_call(config, strategy):
    """Steps in one call to the device: by default 1, and a whole log interval on TPU."""
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    return config.steps_per_call or (config.log_every_steps if on_tpu else 1)


def _accelerators():
    return tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")


def distribute_data(source, recipe, config, layout, strategy, start_step):
    """Iterator over distributed batches from `start_step` on."""

    def dataset(context):
        return training_dataset(
            source,
            recipe,
            layout,
            host=context.input_pipeline_id,
            image_size_px=config.data.image_size_px,
            seed=config.seed,
            start_step=start_step,
            shuffle=config.model.shuffle,
            augment_on=augment_on(config),
            shuffle_buffer=config.data.shuffle_buffer,
            shard_files=config.data.shard_files,
        )

    return iter(strategy.distribute_datasets_from_function(dataset))


def augment_on(config):
    """Where the photometric half runs, "host" or "device"; "auto" prefers a GPU or TPU."""
    if config.data.augment_on != "auto":
        return config.data.augment_on
    return "device" if _accelerators() else "host"


def make_call(model, recipe, strategy, steps, timed=True):
    """A compiled function that takes an iterator and trains `steps` steps.

    Returns:
        Dict of arrays with one row a step: loss, top1, top5 (mean over this process' replicas),
        wait (seconds until the batch was there), ok (steps x rows), name (steps x rows x 120).
    """

    def step(batch):
        for letter in "qk":
            if f"draws_{letter}" in batch:
                draws = batch.pop(f"draws_{letter}")
                batch[f"x_{letter}"] = recipe.photometric(batch[f"x_{letter}"], draws)
        return model.step(batch)

    def clock():
        return tf.timestamp() if timed else tf.constant(0.0, tf.float64)

    def join(x):
        return tf.concat(strategy.experimental_local_results(x), axis=0)

    def one(iterator):
        start = clock()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        seen = {name: join(batch.pop(name)) for name in ("ok", "name")}
        with tf.control_dependencies([seen["ok"]]):
            wait = clock() - start
        logs = strategy.run(step, (batch,))
        means = {
            name: tf.reduce_mean(tf.stack(strategy.experimental_local_results(logs[name])))
            for name in NAMES
        }
        return means | seen | {"wait": wait}

    @tf.function(autograph=False)
    def call(iterator):
        if steps == 1:
            return tf.nest.map_structure(lambda x: x[None], one(iterator))
        spec = {
            **{name: tf.TensorSpec((), tf.float32) for name in NAMES},
            "wait": tf.TensorSpec((), tf.float64),
            "ok": tf.TensorSpec((None,), tf.bool),
            "name": tf.TensorSpec((None, bad_images.NAME_BYTES), tf.uint8),
        }
        return tf.map_fn(
            lambda _: one(iterator),
            tf.range(steps),
            parallel_iterations=1,
            fn_output_signature=spec,
        )

    return call


def train(
    model, iterator, recipe, *, start, plan, every, marks, steps_per_call, callbacks, stop, timed
):
    """Trains from step `start` to `plan.stop`.

    Args:
        model: compiled `MoCo`, at step `start`.
        iterator: of `distribute_data`, at the same step.
        recipe: of the data, for its photometric half.
        start: steps done before.
        plan: `Plan`.
        every: numbers of steps at whose multiples a round ends; 0 for none.
        marks: further steps at which one ends.
        steps_per_call: steps in one call to the device.
        callbacks: `keras.callbacks.CallbackList`.
        stop: function that says whether to stop early; asked after each call.
        timed: whether to measure the wait for input; not under op determinism.

    Returns:
        Steps done in all.
    """
    strategy = model.distribute_strategy
    calls = {n: make_call(model, recipe, strategy, n, timed) for n in {1, steps_per_call}}
    step, epoch_logs = start, []
    callbacks.on_train_begin({"step": start})
    while step < plan.stop and not model.stop_training:
        if step == start or step % plan.steps_per_epoch == 0:
            callbacks.on_epoch_begin(step // plan.steps_per_epoch)
        multiples = [(step // n + 1) * n for n in every if n]
        epoch_end = (step // plan.steps_per_epoch + 1) * plan.steps_per_epoch
        end = min(plan.stop, epoch_end, *multiples, *[mark for mark in marks if mark > step])
        first, began, outputs, stopping = step, time.perf_counter(), [], False
        while step < end and not stopping:
            callbacks.on_train_batch_begin(step)
            n = steps_per_call if end - step >= steps_per_call else 1
            outputs.append(calls[n](iterator))
            step += n
            # Several workers must agree where to stop: they ask at the end of the round.
            stopping = stop() if distribute.num_hosts(strategy) == 1 else False
        rows = {k: np.concatenate([o[k].numpy() for o in outputs]) for k in outputs[0]}
        seconds = time.perf_counter() - began
        table = np.stack([rows[name] for name in NAMES], axis=1)
        agreed = np.append(table.ravel(), float(stop())).astype(np.float32)
        agreed = np.asarray(distribute.mean_over_workers(strategy, tf.constant(agreed)))
        table, stopping = agreed[:-1].reshape(table.shape), agreed[-1] > 0

        for i, values in enumerate(table):
            logs = dict(zip(NAMES, map(float, values)))
            epoch_logs.append(logs)
            if i == len(table) - 1:
                logs = logs | {  # what is known of the round goes with its last step
                    "seconds": seconds / len(table),
                    **({"input_wait": float(rows["wait"].sum() / seconds)} if timed else {}),
                    "bad_names": bad_images.names(rows["name"][~rows["ok"]]),
                    "round_end": True,
                }
            callbacks.on_train_batch_end(first + i + 1, logs)
        if step % plan.steps_per_epoch == 0 or step == plan.stop:
            means = {n: float(np.mean([logs[n] for logs in epoch_logs])) for n in NAMES}
            callbacks.on_epoch_end((step - 1) // plan.steps_per_epoch, means)
            epoch_logs = []
        if stopping:
            break
    callbacks.on_train_end({"step": step})
    return step
