"""The encoder to evaluate or export: from a training workdir, a .keras or a PyTorch file."""

import dataclasses
import hashlib
import json
import os
import zipfile

import keras
import tensorflow as tf

from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.resnet import ResNet, require_resnet
from moco_tf.data import recipes
from moco_tf.interop import naming_schemes, old_encoders, torch_file, training_state
from moco_tf.log import log
from moco_tf.pretraining import config as config_lib

STANDARD_RECIPE = "moco:v2"  # of encoders whose run is not known
RULE = "`--checkpoint` must be the workdir of a train.py run, an encoder's .keras or a PyTorch file"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An encoder and where it comes from.

    Attributes:
        encoder: the `Encoder`.
        path: its file.
        digest: `digest` of the encoder.
        run: `config.Config` of the run that made it, or None for a file without its workdir.
    """

    encoder: Encoder
    path: str
    digest: str
    run: config_lib.Config | None


def load(checkpoint, random_init=False, seed=0):
    """Loads the encoder of a checkpoint; call it in the strategy's scope.

    Args:
        checkpoint: workdir of a train.py run, an encoder's .keras file, or a PyTorch file of
            one of `naming_schemes.NAMING_SCHEMES`; local or gs://.
        random_init: new weights instead of the trained ones.
        seed: of the new weights.

    Returns:
        `Loaded`.

    Raises:
        ValueError: for anything else.
    """
    path = checkpoint
    if not path.endswith((".keras", *torch_file.ENDINGS)):
        path = os.path.join(checkpoint, "encoder.keras")
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{RULE}. Received: {checkpoint!r}; there is no {path}.")
    if path.endswith(".keras"):
        encoder = _keras(path)
    else:
        encoder = training_state.encoder_of(naming_schemes.parse(torch_file.read(path)), repr(path))
    if random_init:
        keras.utils.set_random_seed(seed)
        encoder = encoder.clone()
    return Loaded(encoder, path, digest(encoder), _run_of(path))


def _keras(path):
    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{RULE}. Received: {path!r}. Keras says: {error}") from error
    encoder = model if isinstance(model, Encoder) else old_encoders.convert(model)
    if encoder is None:
        raise ValueError(
            f"{RULE}, an `Encoder` of a backbone and a head. Received: {path!r}, with the layers "
            f"{', '.join(layer.name for layer in model.layers[:5])}."
        )
    return encoder


def _run_of(path):
    config = os.path.join(os.path.dirname(path), "config.json")
    if os.path.basename(path) != "encoder.keras" or not tf.io.gfile.exists(config):
        return None
    try:
        with tf.io.gfile.GFile(config) as file:
            values = json.load(file)
        return None if "task" in values else config_lib.from_json(values)
    except ValueError as error:
        raise ValueError(
            f"{config} cannot be read as the config of the run that made the encoder beside it. "
            f"Received: {error} Copy encoder.keras into a folder of its own and name that file as "
            "`--checkpoint`: it is then used without its run, so also set the image size and the "
            "recipe that it was trained with."
        ) from error


def load_classifier(workdir, loaded):
    """The linear classifier of an evaluation's workdir on the features of an encoder.

    Args:
        workdir: of `evaluate.py --task=linear` or `linear_cached`.
        loaded: `Loaded` of the encoder that was evaluated.

    Returns:
        `(weights CxK, bias K, names of the K classes)`.

    Raises:
        ValueError: for another encoder, or a workdir without a classifier.
    """
    path, results = (os.path.join(workdir, n) for n in ("classifier.keras", "results.json"))
    if not (tf.io.gfile.exists(path) and tf.io.gfile.exists(results)):
        raise ValueError(
            "The classifier must be the workdir of a finished linear or linear_cached evaluation. "
            f"Received: {workdir!r}, without classifier.keras and results.json."
        )
    network = keras.models.load_model(path, compile=False)
    _, backbone, classifier = network.layers
    if digest(backbone) != digest(loaded.encoder.backbone):
        raise ValueError(
            f"The classifier must be one on the features of {loaded.path}. Received: {workdir!r}, "
            "with another backbone (was it fine-tuned?)."
        )
    with tf.io.gfile.GFile(results) as file:
        data = json.load(file).get("data", {})
    kernel, bias = classifier.get_weights()
    names = data.get("class_names") or list(map(str, range(len(bias))))
    return kernel, bias, names


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before an encoder sees it.

    Attributes:
        recipe: `Recipe` whose normalisation is used.
        image_size_px: side of the centre crop.
        resize_px: short side of the image before it.
    """

    recipe: object
    image_size_px: int
    resize_px: int


def preprocessing(loaded, image_size_px=None, resize_px=None, recipe=None):
    """The `Preprocessing` of an encoder: as given, else as in its run, else as on ImageNet.

    Args:
        loaded: `Loaded`.
        image_size_px, resize_px: px; None: the run's.
        recipe: address; None: the run's.

    Raises:
        ValueError: for a crop larger than the image, or an unknown recipe.
    """
    run = loaded.run
    size = image_size_px or (run.data.image_size_px if run else 224)
    resize = resize_px
    if not resize and run and size == run.data.image_size_px:
        resize = run.monitor.resize_px
    resize = resize or round(size * 8 / 7)
    if resize < size:
        raise ValueError(
            f"`resize_px` must be at least the image size, {size}. Received: {resize}."
        )
    if not run and not (image_size_px and recipe):
        log.warning(
            "The encoder is a file without its run: it is given %d px images, normalised as %s. "
            "If it was trained with others, set image_size_px and recipe.",
            size,
            recipe or STANDARD_RECIPE,
        )
    return Preprocessing(recipe_of(loaded, recipe), size, resize)


def recipe_of(loaded, recipe=None):
    """The `Recipe` of an address, or of the encoder's run, or else the one for ImageNet."""
    default = loaded.run.data.recipe if loaded.run else STANDARD_RECIPE
    return recipes.find(recipe or default, "recipe")


def digest(model):
    """SHA-256 of all weights of a model, hexadecimal: equal means equal bit for bit."""
    sha = hashlib.sha256()
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            value = variable.numpy()
            sha.update(f"{variable.path} {value.dtype} {value.shape}".encode())
            sha.update(value.tobytes())
    return sha.hexdigest()


def finetuned_backbone(encoder, bn_group_size=None):
    """The backbone to fine-tune, whose BN normalizes `bn_group_size` rows together.

    Args:
        encoder: `Encoder`.
        bn_group_size: rows that share BN statistics; None for all rows of a replica.

    Returns:
        A copy of a ResNet; the backbone itself, if it is another model.

    Raises:
        ValueError: for groups in another backbone than a ResNet.
    """
    if isinstance(encoder.backbone, ResNet) or bn_group_size:
        return require_resnet(encoder.backbone).rebuild(bn_group_size=bn_group_size)
    return encoder.backbone


def require_backbone(loaded, name):
    """Raises ValueError unless the encoder's backbone has this name (None: any)."""
    received = loaded.encoder.backbone.name
    if name and name != received:
        raise ValueError(
            f"The checkpoint's backbone must be {name}, as `--config.backbone` says. Received: "
            f"{received}, of {loaded.path}."
        )
