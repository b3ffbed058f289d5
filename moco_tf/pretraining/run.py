"""A pre-training run, from its config to a trained encoder."""

import os

import keras

from moco_tf import distribute, schema
from moco_tf.data import recipes, sources
from moco_tf.data.two_views import require_index
from moco_tf.pretraining import build, diagnostics, report
from moco_tf.probes import monitor as monitors
from moco_tf.training import callbacks, checkpoint, guard, loop
from moco_tf.training import plan as plan_lib


def pretrain(config, workdir, strategy, stop=lambda: False):
    """Runs or resumes a pre-training run.

    Args:
        config: checked `Config`.
        workdir: folder of the run, local or gs://.
        strategy: of `strategies.make_strategy`.
        stop: function that says whether to stop early.

    Returns:
        Steps done in all.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
    """
    chief = distribute.is_chief(strategy)
    layout = plan_lib.make_layout(
        config,
        strategy,
        gradient_accumulation=config.gradient_accumulation,
        bn_group_size=config.model.bn_group_size,
    )
    recipe, recipe_k = recipes.find_both(config.data.recipe, config.data.recipe_k)
    source = sources.open_source(config.data.source, config.data.data_dir, config.data.num_examples)
    if config.model.mechanism == "memory_bank":
        require_index(source)
    plan = plan_lib.make_plan(config, source.num_examples, config.monitor.every)
    with strategy.scope():
        model = build.make_model(config, plan.num_images, plan.steps_per_epoch)
    scores = monitors.make_scores(config, model, recipe, strategy, plan)
    checkpoint.claim_workdir(schema.to_dict(config), workdir, strategy)
    encoder = os.path.join(workdir, "encoder.keras")
    checkpoints = checkpoint.Checkpoints(
        model, model.encoder_q, encoder, config.keep_checkpoints, write=chief
    )
    start = checkpoints.restore()
    build.describe(config, layout, source, plan, start)

    every = (config.log_every_steps, config.checkpoint_every_steps)
    metrics = callbacks.MetricsLog(workdir, plan.steps_per_epoch) if chief else None
    profile = callbacks.Profile(workdir, *config.profile_steps) if config.profile_steps else None
    watching = [
        callbacks.Speed(config.batch_size),
        diagnostics.Diagnostics(config, layout),
        guard.Guard(
            checkpoints,
            config.batch_size,
            config.data.max_bad_fraction,
            "Look at the data, or start a new workdir with a lower learning rate.",
            build.input_remedy(config),
            config.max_skipped_steps,
        ),
        scores,
        metrics,
        callbacks.Progress(plan) if chief else None,
        profile,
        callbacks.Save(checkpoints, config.checkpoint_every_steps, metrics),
    ]
    done = loop.train(
        model,
        build.distribute_data(source, recipe, recipe_k, config, layout, strategy, start),
        build.make_step(model, recipe, recipe_k, config, strategy),
        start=start,
        plan=plan,
        every=(*every, plan.monitor_every if scores else 0),
        marks=profile.marks if profile else (),
        steps_per_call=build.steps_per_call(config, strategy),
        callbacks=keras.callbacks.CallbackList([c for c in watching if c], model=model),
        stop=stop,
        timed=not config.deterministic,
    )
    if chief:
        report.write(workdir, source, recipe, recipe_k, model.encoder_q, config)
    return done
