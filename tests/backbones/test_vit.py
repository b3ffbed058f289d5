"""Vision transformers: MoCo v3's architecture, in PyTorch, and its initialization."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import SGD, Encoder, MoCo, addresses, backbones, contrastive, encoders, heads, vit
from moco_tf.backbones.precision import in_float32
from moco_tf.interop.savedmodel import with_policy
from moco_tf.pretraining import build

# Trainable parameters of timm's vit_small_patch16_224 and vit_base_patch16_224 without classifier,
# less their learned positions (197 x C) and the projection of patches (768 x C + C), frozen here.
PARAMETERS = {
    "vit_small": 21_665_664 - 197 * 384 - 769 * 384,
    "vit_base": 85_798_656 - 197 * 768 - 769 * 768,
}


def small(**options):
    keras.utils.set_random_seed(0)
    return vit.VisionTransformer(
        **{"width": 16, "depth": 2, "num_heads": 4, "patch_px": 4} | options
    )


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def assert_uniform(values, limit):
    values = np.ravel(values)
    assert 0.98 * limit < np.abs(values).max() <= limit
    np.testing.assert_allclose(values.std(), limit / math.sqrt(3), rtol=0.05)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    make = addresses.resolve(backbones, f"vit:{name}", "model.backbone")
    with keras.StatelessScope(initialize_variables=False):  # without memory for them
        count = sum(math.prod(v.shape) for v in make().trainable_variables)
    keras.utils.clear_session()
    assert count == PARAMETERS[name]


@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_forward_and_gradients_equal_pytorch(grid):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    import vit_peer

    peer = vit_peer.randomized(vit_peer.ViT(16, 2, 4, patch_px=4, grid=grid))
    model = small(frozen_patches=False)
    named = {n: p.detach().numpy() for n, p in peer.named_parameters()}
    order = [n for n in named if n != "pos_embed"]
    order.insert(2, order.pop(0))  # cls_token comes after the projection
    variables = dict(zip(order, model.variables, strict=True))
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    for name, variable in variables.items():
        variable.assign(named[name].transpose(axes.get(named[name].ndim, range(named[name].ndim))))
    x = images(3, 4 * grid[0], 4 * grid[1], 3)
    want = peer(torch.tensor(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(model(x), want.detach(), rtol=1e-4, atol=1e-4)

    weights = images(*want.shape)
    (want * torch.tensor(weights)).sum().backward()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x) * weights)
    gradients = tape.gradient(loss, [v.value for v in variables.values()])
    for name, gradient in zip(variables, gradients, strict=True):
        theirs = dict(peer.named_parameters())[name].grad.numpy()
        ours = gradient.numpy()
        ours = ours.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(ours.ndim, range(ours.ndim)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3, err_msg=name)


def test_graphs_of_unknown_size_and_under_xla_compute_the_same():
    model = small()
    free = tf.function(lambda x: model(x)).get_concrete_function(
        tf.TensorSpec([None, None, None, 3])
    )
    x = tf.constant(images(2, 12, 20, 3))
    np.testing.assert_allclose(free(x), model(x), atol=1e-5)
    compiled = tf.function(lambda x: model(x), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(x), model(x), atol=1e-5)


def test_starts_as_the_public_code_s():
    model = small(width=128, depth=1)
    kernels = {
        layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")
    }
    limits = {
        "patch_embed.proj": (3 * 4 * 4, 128),
        "blocks.0.attn.qkv": (128, 128),  # each third on its own
        "blocks.0.attn.proj": (128, 128),
        "blocks.0.mlp.fc1": (128, 512),
        "blocks.0.mlp.fc2": (512, 128),
    }
    assert kernels.keys() == limits.keys()
    for name, kernel in kernels.items():
        assert_uniform(kernel, math.sqrt(6 / sum(limits[name])))
        assert not model.get_layer(name).bias.numpy().any()
    token = model.get_layer("tokens").cls_token.numpy()
    assert 0.7e-6 < token.std() < 1.3e-6
    two = small()
    blocks = [two.get_layer(f"blocks.{i}.attn.qkv").kernel.numpy() for i in range(2)]
    assert np.abs(blocks[0] - blocks[1]).max() > 0.01


def test_the_projection_of_patches_stays_random_under_micro_batches():
    model = MoCo(Encoder(small(), heads.mlp(8)), queue_size=12, gradient_accumulation=3)
    assert contrastive.statistics_of(model.encoder_q) == []
    model.compile(SGD(0.1))
    network = model.encoder_q.backbone
    before = {v.path: v.numpy() for v in network.variables}
    logs = model.step((images(6, 8, 8, 3), images(6, 8, 8, 3) + 1))
    assert np.isfinite(logs["loss"])
    same = {v.path for v in network.variables if np.array_equal(before[v.path], v)}
    assert {path.rpartition("/")[0] for path in same} == {"patch_embed.proj"}


def test_copies_and_files_compute_the_same(tmp_path):
    encoder = Encoder(small(), heads.mlp(5))
    x = images(2, 8, 12, 3)
    encoder.save(tmp_path / "encoder.keras")
    clone = encoder.clone()
    clone.set_weights(encoder.get_weights())
    for copy in (clone, keras.models.load_model(tmp_path / "encoder.keras")):
        assert type(copy.backbone) is vit.VisionTransformer
        assert copy.backbone.get_config() == encoder.backbone.get_config()
        np.testing.assert_array_equal(copy(x), encoder(x))
        assert [v.path for v in copy.variables] == [v.path for v in encoder.variables]
        assert len(copy.trainable_variables) == len(encoder.trainable_variables)
    mixed = small(dtype="mixed_bfloat16")
    assert mixed(x).dtype == tf.bfloat16
    exact = in_float32(mixed)
    np.testing.assert_array_equal(exact(x), encoder.backbone(x))
    np.testing.assert_allclose(tf.cast(mixed(x), tf.float32), exact(x), atol=0.1)
    half = with_policy(encoder.features_and_embeddings(), "mixed_bfloat16")
    assert 0 < np.abs(half(x)[1] - encoder(x)).max() < 0.05


def test_fine_tuning_trains_the_projection_of_patches_too():
    encoder = Encoder(small())
    copy = encoders.finetuned_backbone(encoder)
    assert len(copy.trainable_variables) == len(encoder.trainable_variables) + 2
    x = images(2, 8, 8, 3)
    np.testing.assert_array_equal(copy(x), encoder(x))


def test_images_that_are_no_multiple_of_a_patch_are_refused():
    with pytest.raises(ValueError, match="`width` must be a multiple of 4.*width=18, num_heads=4"):
        small(width=18)
    config = tiny.config(model__backbone="vit:vit_small", model__stem="imagenet")
    config.model.width, config.model.bn_group_size = 24, None
    config.data.image_size_px = 40
    with pytest.raises(ValueError, match=r"image_size_px` must be a multiple of 16.*Received: 40"):
        build.make_model(config)
