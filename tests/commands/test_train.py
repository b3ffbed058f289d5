"""train.py as users start it: resume, kills, refusals, logs and pictures."""

import json
import os
import re
import signal

import pytest
import tiny
from pictures import images_with_three_bad_ones

from moco_tf.backbones import precision
from moco_tf.training import callbacks
from moco_tf.training.round import Round

FAST = {"stop_after_steps": 12, "checkpoint_every_steps": 4}


@pytest.mark.slow
@pytest.mark.parametrize("cpus, kills", [(1, 3), (2, 3)])
def test_a_killed_run_resumes_bit_for_bit(cpus, kills, tmp_path):
    folder = images_with_three_bad_ones(tmp_path / "images")
    flags = {
        **FAST,
        "data.source": f"folder:{folder}",
        "data.max_bad_fraction": 0.1,
        "epochs": 30,
        "stop_after_steps": 20,
        "log_every_steps": 1,
    }
    strategy = "--strategy=mirrored" if cpus > 1 else "--strategy=none"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output = tiny.run(tiny.command(whole, strategy, cpus=cpus, **flags))
    for name in ("05.png", "17.png", "40.png"):
        assert f"Replaced an image that cannot be decoded: {name}" in output

    args = tiny.command(killed, strategy, cpus=cpus, **flags)
    for step in (6, 11, 14)[:kills]:
        tiny.run_to_signal(args, "SIGKILL", step)
    # A kill within the first checkpoint since the resume, not yet at the end.
    tiny.run([*args, "--kill_in_save=1"], code=-signal.SIGKILL)
    assert "resuming after step" in tiny.run(args)

    tiny.assert_same_state(whole, killed)
    tiny.assert_each_step_once(killed, 20)
    assert (tiny.losses(whole) == tiny.losses(killed)).all()


@pytest.mark.slow
def test_a_run_that_is_stopped_saves_first_and_the_same_command_goes_on(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = {**FAST, "checkpoint_every_steps": 1000, "log_every_steps": 1}
    tiny.run(tiny.command(whole, **flags))
    args = tiny.command(stopped, **flags)
    step = 0
    for name, shown, at in (("SIGTERM", "SIGTERM", 3), ("SIGINT", "Ctrl-C", 7)):
        output = tiny.run_to_signal(args, name, at)
        assert step == 0 or f"resuming after step {step}" in output
        step = int(re.search(rf"Stopped by {shown} after step (\d+), saved", output)[1])
        assert step < 12 and os.path.exists(stopped / "checkpoints" / f"step-{step}.index")
        assert "Traceback" not in output
    assert "Ctrl-C again ends the run at once" in output
    assert f"resuming after step {step}" in tiny.run(args)
    tiny.assert_same_state(whole, stopped)
    tiny.assert_each_step_once(stopped, 12)


def test_a_finished_run_leaves_everything_and_tells_where(tmp_path):
    folder = tiny.shapes_folder(tmp_path / "data", 90)
    flags = {**FAST, "monitor.source": "auto", "monitor.resize_px": 16, "profile_steps": "2,3"}
    flags |= {"data.source": f"folder:{folder}/train", "epochs": 4}
    tmp_path /= "run"
    output = tiny.run(tiny.command(tmp_path, "--report=true", **flags), fresh=True)
    assert "kNN accuracy" in output and "the same encoder untrained" in output
    assert f"checkpoint  {tmp_path}/checkpoints/step-12" in output
    assert "12/12" in output  # the progress bar
    assert f"moco_tf evaluate --task=knn --checkpoint={tmp_path}" in output
    lines = tiny.metrics(tmp_path)
    assert "knn" in lines[0] and "knn" in lines[12]
    seen = lines[12].keys()
    assert seen >= {"loss", "top1", "top5", "learning_rate", "momentum", "images_per_second"}
    assert seen >= {"input_wait", "queue_fill", "key_age", "key_norm", "key_effective_rank"}
    assert seen >= {"positives_in_group", "bad_images", "key_mean_norm"}
    page = (tmp_path / "report.html").read_text()
    assert f"train.py --config={tiny.CONFIG} --workdir={tmp_path}" in page
    assert page.count("data:image/png;base64,") == 8 and "http" not in page
    assert len(list((tmp_path / "checkpoints").glob("step-*.index"))) == 3
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert list((tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))

    import keras
    import numpy as np

    import moco_tf  # noqa: F401 registers the layers

    encoder = keras.models.load_model(tmp_path / "encoder.keras")
    assert encoder(np.zeros((2, 16, 16, 3), "float32")).shape == (2, 8)

    refused = tiny.run(
        tiny.command(tmp_path, **{**flags, "seed": 1, "model.momentum": 0.5}), code=1
    )
    assert "made by another config" in refused
    assert "--config.seed: 0 -> 1" in refused and "--config.model.momentum: 0.99 -> 0.5" in refused
    assert "Traceback" not in refused


def test_a_run_that_starts_again_logs_step_0_once(tmp_path):
    for _ in range(2):  # killed before its first checkpoint
        log = callbacks.MetricsLog(str(tmp_path), steps_per_epoch=4)
        log.start(0)
        log.round_end(Round(0, 0, measured={"knn": 0.5}))
        log.end()
    tiny.assert_each_step_once(tmp_path, 0)


@pytest.mark.slow
def test_all_options_together_train(tmp_path):
    flags = {"deterministic": "true", "mixed_bfloat16": "true", "gradient_accumulation": 2}
    flags |= {"model.symmetric": "true", "steps_per_call": 2}
    flags |= {"jit_compile": "true", "data.augment_on": "device"}
    output = tiny.run(tiny.command(tmp_path, **flags))
    assert "Trained 4 steps" in output and "slower under XLA" in output
    assert ("bfloat16 is about ten times slower" in output) != precision.has_amx()
    assert "input_wait" not in tiny.metrics(tmp_path)[4]  # determinism forbids the clock


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--config.data.sorce=1"],
            "no flag --config.data.sorce. Did you mean --config.data.source?",
        ),
        (["--epochs=1"], "There is no flag --epochs. Did you mean --config.epochs? --help lists"),
        (["--config.batch_size=abc"], "--config.batch_size=abc: invalid literal"),
        (["--config.model.temperature=0"], "`--config.model.temperature` must be positive"),
        (
            ["--config.monitor.resize_px=8"],
            "`--config.monitor.resize_px` must be none, or at least 16",
        ),
        (["--config.data.source=folder:/nope"], "'/nope', which does not exist"),
        (["stray"], "Received: 'stray', which does not exist"),
        (["two", "folders"], "Unknown arguments: two folders"),
    ],
)
def test_a_users_mistake_ends_in_a_message(flags, message, tmp_path):
    output = tiny.run([*tiny.command(tmp_path / "new"), *flags], code=1)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    flags = {**FAST, "optimizer.learning_rate": 1e30, "log_every_steps": 1}
    output = tiny.run(tiny.command(tmp_path, **{**flags, "checkpoint_every_steps": 1}), code=1)
    message = re.search(r"must be finite. Received: loss (nan|inf) at step (\d+)", output)
    assert message, output[-2000:]
    assert f"step-{int(message[2]) - 1}" in output


def test_too_many_bad_images_stop_the_run(tmp_path):
    folder = images_with_three_bad_ones(tmp_path / "images")
    flags = {"data.source": f"folder:{folder}", "epochs": 40, "stop_after_steps": 100}
    output = tiny.run(tiny.command(tmp_path / "run", **flags), code=1)
    assert "At most --config.data.max_bad_fraction=0.01 of the images may be undecodable" in output
    assert "05.png" in output


@pytest.mark.slow
@pytest.mark.skipif(
    not (tiny.DATA / "imagenet_sample").exists(), reason="needs shared/data/imagenet_sample"
)
def test_moco_v2_trains_on_real_jpegs(tmp_path):
    config = tiny.ROOT / "configs" / "moco_v2.py"
    output = tiny.run(
        [
            *tiny.command(tmp_path)[:3],
            f"--config={config}",
            f"--workdir={tmp_path}",
            f"--config.data.source=folder:{tiny.DATA / 'imagenet_sample'}",
            "--config.batch_size=8",
            "--config.model.bn_group_size=4",
            "--config.epochs=1",
            "--config.model.queue_size=64",
            "--config.stop_after_steps=3",
            "--config.data.image_size_px=96",
            "--config.log_every_steps=1",
        ]
    )
    assert "no labelled splits" in output
    assert len(tiny.losses(tmp_path)) == 3
    assert (
        json.loads((tmp_path / "config.json").read_text())["model"]["backbone"] == "resnet:resnet50"
    )
