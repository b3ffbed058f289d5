"""A pre-training run, from its config to a trained encoder."""

import functools
import os
from collections.abc import Callable

import tensorflow as tf

from moco_tf import distribute, schema, strategies, workers
from moco_tf.data import examination, recipes, sources
from moco_tf.data.two_views import require_index
from moco_tf.log import log
from moco_tf.pretraining import (
    build,
    command_record,
    data_record,
    diagnostics,
    initial,
    mechanism,
    memory,
    report,
)
from moco_tf.pretraining.config import Config
from moco_tf.probes import monitor as monitors
from moco_tf.probes import quality
from moco_tf.training import checkpoint, fit, in_use
from moco_tf.training import plan as plan_lib

WAY_ON = (
    "To go on with another config (more epochs, another batch, queue or data), start a new "
    "--workdir from this one's encoders and queue by --init={}."
)


def pretrain(
    config: Config,
    workdir: str,
    strategy: tf.distribute.Strategy,
    stop: Callable[[], bool] = lambda: False,
    init: initial.Init | None = None,
    command: str | None = None,
) -> int:
    """Runs or resumes a pre-training run.

    Args:
        config: checked `Config`.
        workdir: folder of the run, local or gs://.
        strategy: strategy from `strategies.make_strategy`.
        stop: function that says whether to stop early.
        init: what a new run starts from, see `warm_start.init`; None: random weights.
        command: the command that starts it, for its report.

    Returns:
        Steps done in all.

    Raises:
        ValueError: if the workdir is of another config, was started from something else, or is
            written to by another process.
        loop.Stopped: if it was asked to stop before the end.
    """
    layout = build.make_layout(config, strategy)
    recipe, recipe_k = recipes.find_both(config.data.recipe, config.data.recipe_k)
    data = config.data
    index_dir = os.path.join(workdir, data_record.INDEX)
    source = workers.chief_first(
        strategy,
        lambda: sources.open_source(
            data.source,
            data.data_dir,
            data.num_examples,
            decode=data.decode,
            index_dir=index_dir,
        ),
    )
    if distribute.is_chief(strategy):
        examination.look_at(source)
    if mechanism.find(config.model.mechanism).needs_index:
        require_index(source)
    identity = data_record.identity(source)
    num_images = source.num_examples
    source, queries = monitors.hold_out(config, source)
    if queries:
        log.info(
            "The data have labels but no held-out split: %d of %d images, a tenth of each class, "
            "are not trained on, but classified by the kNN monitor. --config.monitor.source=off "
            "trains on all.",
            queries.num_examples,
            num_images,
        )
    plan = plan_lib.make_plan(
        config, source.num_examples, config.monitor.every, config.model.bn_group_size
    )
    with strategy.scope():
        model = build.make_model(config, plan.num_images, plan.steps_per_epoch)
    if not strategies.accelerators():  # elsewhere the device's allocator says what it lacks
        memory.check(model, config, layout, memory.machine())
    held_out = (source, queries) if queries else None
    scores = monitors.make_scores(config, model, recipe, strategy, plan, held_out, index_dir)
    scores = scores or quality.make_scores(config, model, recipe, source, strategy)
    movable = data_record.movable(workdir, identity)
    way_on = WAY_ON.format(workdir)
    with in_use.held(workdir, strategy):
        checkpoint.claim_workdir(schema.to_dict(config), workdir, strategy, way_on, movable)
        data_record.write(workdir, identity, strategy)
        if command:
            command_record.add(workdir, command, strategy)
        initial.start(model, init, workdir, config.seed, strategy)
        build.describe(config, layout, source)
        done = fit.fit(
            model,
            os.path.join(workdir, "encoder.keras"),
            config,
            plan,
            build.make_dataset(source, recipe, recipe_k, config, layout),
            build.make_step(model, recipe, recipe_k, config, strategy),
            scores,
            stop,
            result=model.encoder_q,
            observers=[diagnostics.Diagnostics(model, config, layout, plan.total)],
            remedy="Look at the data, or start a new workdir with a lower learning rate.",
            input_remedy=build.input_remedy(config),
            max_bad_fraction=config.data.max_bad_fraction,
            max_skipped=config.max_skipped_steps,
            keep=config.keep_checkpoints,
            steps_per_call=build.steps_per_call(config, strategy),
            profile_steps=config.profile_steps,
            why_bad=functools.partial(examination.why_bad, source),
        )
        if distribute.is_chief(strategy):
            report.write(workdir, source, recipe, recipe_k, model.encoder_q, config)
        return done
