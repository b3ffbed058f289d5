"""Segmentation: the network, its training on any topology, killed and resumed, tested, served."""

import io
import json
import pathlib

import keras
import numpy as np
import pytest
import scenes
import tensorflow as tf
import tiny
from PIL import Image
from small_resnet import four_stages

from moco_tf.backbones import heads, resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.commands import export
from moco_tf.data.recipes import moco
from moco_tf.evaluation import report
from moco_tf.evaluation.task import evaluate
from moco_tf.segmentation import config as configs
from moco_tf.segmentation import examination, networks, scoring, sources
from moco_tf.segmentation.segmenter import make_predict


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The file of an untrained encoder, with the stem of small images."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("pretrained") / "encoder.keras"
    Encoder(four_stages(8, "cifar"), heads.mlp(8)).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Addresses of training and test scenes."""
    root = tmp_path_factory.mktemp("scenes")
    return scenes.write(root / "train", 40), scenes.write(root / "test", 10, first=100)


def make(data, **overrides):
    """The checked config of a short run; a field of a part is given as part__field."""
    config = configs.Segmentation(batch_size=4, steps=6, log_every_steps=1, test_batch_size=4)
    config.data = configs.Data(train=data[0], test=data[1], num_classes=4, crop_px=32)
    config.optimizer.milestones_steps, config.optimizer.reference_batch = (), 4
    config.optimizer.learning_rate = 0.01
    for name, value in overrides.items():
        part, _, last = name.rpartition("__")
        setattr(getattr(config, part) if part else config, last or name, value)
    configs.check(config)
    return config


def segment(data, pretrained, workdir, strategy=None, **overrides):
    strategy = strategy or tf.distribute.get_strategy()
    config = make(data, **overrides)
    return evaluate("segmentation", config, str(pretrained), str(workdir), strategy)


@pytest.mark.parametrize("name, stride, dilation", [("resnet18", 16, 2), ("resnet50", 32, 1)])
def test_the_dense_backbone_is_the_encoders_at_another_stride(name, stride, dilation):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    import torch_peer as peer

    from moco_tf.interop import weights

    torch.manual_seed(0)
    model = peer.randomized(peer.resnet(name.removeprefix("resnet"), None, 8)).eval()
    encoder = Encoder(getattr(resnet, name)(width=8), heads.mlp(8))
    state = {k: v.numpy() for k, v in model.state_dict().items() if "num_batches" not in k}
    weights.set_arrays(encoder.backbone, state)
    if dilation == 2:  # what torchvision calls replace_stride_with_dilation
        for module in model.layer4.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.stride = 1
                if module.kernel_size == (3, 3):
                    module.dilation = module.padding = 2
    model.avgpool = torch.nn.Identity()
    x = peer.images(2, 96, 64, 3)
    with torch.no_grad():
        want = model.features(peer.torch_images(x)).reshape(2, -1, 96 // stride, 64 // stride)
    backbone = encoder.backbone.rebuild(last_dilation=dilation, synchronized_bn=True)
    got = keras.Model(backbone.input, networks.feature_maps(backbone))(x)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    new = backbone.rebuild(new_weights=True)
    assert np.abs(new.get_weights()[0] - backbone.get_weights()[0]).max() > 0.01


def test_scales_and_mirrors_are_averaged():
    keras.utils.set_random_seed(0)
    encoder = Encoder(four_stages(4, "cifar"), heads.mlp(8))
    network = networks.fcn(encoder.backbone.rebuild(last_dilation=2, synchronized_bn=True), 3)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)

    def normalized(x):
        return moco.v2.normalize(tf.cast(x, tf.float32) / 255)

    def probabilities(x, height, width):
        x = tf.image.resize(x, [height, width])
        return tf.image.resize(tf.nn.softmax(network(x)), [32, 48])

    x = normalized(images)
    want = probabilities(x, 32, 48) + probabilities(x, 16, 24)
    want += sum(probabilities(x[:, :, ::-1], *size)[:, :, ::-1] for size in ((32, 48), (16, 24)))
    predict = make_predict(network, normalized, (1.0, 0.5), True, 1)
    got = tf.function(predict, jit_compile=True)(images)  # as a TPU compiles it
    assert np.mean(got.numpy() == np.argmax(want, axis=-1)) > 0.999


@pytest.mark.slow
def test_a_run_learns_and_is_compared(data, pretrained, tmp_path):
    record = segment(
        data,
        pretrained,
        tmp_path,
        steps=160,
        batch_size=8,
        data__crop_px=48,
        data__scale_min=0.75,
        data__scale_max=1.5,
        optimizer__learning_rate=0.1,
        optimizer__milestones_steps=(120,),
        test_every_steps=80,
        log_every_steps=20,
    )
    assert record["metrics"]["miou"]["value"] >= 0.8
    assert record["details"]["majority"]["class"] == "0"
    assert record["details"]["majority"]["miou"] < 0.25
    assert [line["test_miou"] for line in tiny.metrics(tmp_path) if "test_miou" in line]

    segment(data, pretrained, tmp_path / "b", random_init=True, steps=2)
    table = report.compare([str(tmp_path), str(tmp_path / "b")], str(tmp_path / "all"))
    assert "mIoU (95 %)" in table and "| untrained |" in table


def test_a_run_is_reported_saved_and_served(data, pretrained, tmp_path):
    record = segment(data, pretrained, tmp_path, steps=2, test_every_steps=2)
    assert json.loads((tmp_path / "results.json").read_text()) == record
    assert len(tiny.losses(tmp_path)) == 2 and np.isfinite(tiny.losses(tmp_path)).all()

    # The saved predictions are those that were counted.
    pairs = sources.open_pairs(data[1], 4)
    files = sorted((tmp_path / "predictions").iterdir())
    counts = 0
    for i, path in enumerate(files):
        label = pairs.label(tf.constant(i, tf.int64)).numpy()
        counts = counts + scoring.confusion(label, np.asarray(Image.open(path)), 4)
    assert len(files) == 10 and counts.tolist() == record["details"]["confusion"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page

    with pytest.raises(ValueError, match="has no options.*Received: bfloat16"):
        export.export(str(tmp_path), "savedmodel", str(tmp_path / "served"), bfloat16=True)
    # They are what the SavedModel answers, to bytes of any size; bad ones fail alone.
    version = export.export(str(tmp_path), "savedmodel", str(tmp_path / "served"))
    served = tf.saved_model.load(version).signatures
    contents = [pathlib.Path(path).read_bytes() for path in pairs.images[:2]]
    small = io.BytesIO()
    Image.open(pairs.images[0]).crop((0, 0, 31, 17)).save(small, "PNG")
    contents += [b"no image", small.getvalue(), contents[0][:200]]
    answer = served["segment_bytes"](image_bytes=tf.constant(contents))
    assert answer["ok"].numpy().tolist() == [True, True, False, True, False]
    for png, path in zip(answer["label_png"].numpy(), files[:2]):
        np.testing.assert_array_equal(Image.open(io.BytesIO(png)), Image.open(path))
    assert Image.open(io.BytesIO(answer["label_png"].numpy()[3])).size == (31, 17)
    assert answer["label_png"].numpy()[2] == b""
    pixels = np.stack([np.asarray(Image.open(path)) for path in pairs.images[:2]])
    labels = served["segment_images"](images=tf.constant(pixels))["labels"].numpy()
    np.testing.assert_array_equal(labels[1], np.asarray(Image.open(files[1])))


@pytest.mark.slow
def test_replicas_train_as_one_device_does(data, pretrained, tmp_path, mirrored):
    results = []
    for n in (1, 2):
        segment(data, pretrained, tmp_path / str(n), mirrored(n), steps=4)
        results.append(tiny.losses(tmp_path / str(n)))
    np.testing.assert_allclose(*results, rtol=1e-4)
    single, mirrored_pair = (tiny.saved(tmp_path / str(n)) for n in (1, 2))
    for name in single:
        if "moving_" in name or "kernel" in name or "gamma" in name:
            np.testing.assert_allclose(single[name], mirrored_pair[name], atol=1e-3, err_msg=name)


def test_another_backbone_than_a_resnet_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "check", lambda *_, **__: {})  # for speed
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    Encoder(keras.Model(images, x, name="convnet")).save(tmp_path / "encoder.keras")
    data = [scenes.write(tmp_path / split, 1, first=i) for i, split in enumerate(("train", "test"))]
    with pytest.raises(ValueError, match="A ResNet is needed, received convnet"):
        segment(data, tmp_path / "encoder.keras", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_deeplab_refuses_crops_and_backbones_that_do_not_fit(data, pretrained, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(ValueError, match="multiple of 32 for head=deeplabv3plus. Received: 48"):
        segment(data, pretrained, workdir, head="deeplabv3plus", data__crop_px=48)
    with pytest.raises(ValueError, match="needs a backbone with ImageNet's stem"):
        segment(data, pretrained, workdir, head="deeplabv3plus", data__crop_px=64)
    assert not workdir.exists()


@pytest.mark.slow
def test_deeplab_trains_on_the_same_backbone(data, tmp_path):
    options = dict(head="deeplabv3plus", steps=2)
    keras.utils.set_random_seed(0)
    encoder = Encoder(four_stages(), heads.mlp(8))
    path = tmp_path / "encoder.keras"
    encoder.save(path)
    workdir = tmp_path / "run"
    record = segment(data, path, workdir, **options, data__crop_px=64)
    assert "deeplabv3plus" in record["protocol"] and np.isfinite(tiny.losses(workdir)).all()
    # The test images, 64 x 80 px, were padded to multiples of 32 and the padding not counted.
    assert np.sum(record["details"]["confusion"]) == 10 * 64 * 80
    with pytest.raises(ValueError, match="Only head=fcn can be.*Received: head=deeplabv3plus"):
        export.export(str(workdir), "savedmodel", str(tmp_path / "served"))


def command(pretrained, workdir, data, *flags):
    launch = tiny.command(workdir)[:3]
    config = f"--config={tiny.ROOT}/configs/transfer/camvid_fcn.py"
    given = {"data.train": data[0], "data.test": data[1], "data.num_classes": 4}
    given |= {"data.crop_px": 32, "batch_size": 4, "steps": 12, "test_every_steps": 5}
    given |= {"optimizer.milestones_steps": "(8,)", "log_every_steps": 1}
    given |= {"checkpoint_every_steps": 3, "test_batch_size": 4}
    given = [f"--config.{name}={value}" for name, value in given.items()]
    tasks = ["--script=evaluate.py", "--task=segmentation", f"--checkpoint={pretrained}"]
    return [*launch, *tasks, config, f"--workdir={workdir}", *given, *flags]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same(data, pretrained, tmp_path):
    for name in ("whole", "killed"):
        args = command(pretrained, tmp_path / name, data)
        if name == "killed":
            tiny.run_to_signal(args, "SIGKILL", 4)
            output = tiny.run_to_signal(args, "SIGTERM", 8)
            assert "Stopped by SIGTERM after step" in output and "Traceback" not in output
        assert "segmentation (fcn, end to end, 12 steps of 4 crops" in tiny.run(args)
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "killed")
    whole, killed = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")
    )
    assert whole["metrics"] == killed["metrics"] and whole["details"] == killed["details"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.data.num_classes=3"], "numbers of no class"),
        (["--config.data.ignored=(300,)"], "`--config.data.ignored` must be whole numbers in"),
        (["--config.optimizer.milestones_steps=(40,)"], "below the number of steps, 12"),
        (["--config.test_scales=()"], "`--config.test_scales` must be numbers in"),
        (["--config.data.train=voc:/nope:train"], "DIR a folder that exists"),
        ([f"--config={tiny.ROOT}/configs/eval/knn.py"], "must be one for --task=segmentation"),
    ],
)
def test_a_users_mistake_ends_in_a_message(flags, message, data, pretrained, tmp_path):
    args = command(pretrained, tmp_path / "new", data, *flags)
    if flags[0].startswith("--config="):
        args = [a for a in args if not a.startswith("--config")] + flags
    output = tiny.run(args, code=1)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()
