"""Loading encoders to evaluate or export: from a workdir, a .keras file or a PyTorch file."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from moco_tf.backbones.encoder import Encoder, require_color
from moco_tf.backbones.precision import in_float32
from moco_tf.backbones.resnet import ResNet, require_resnet
from moco_tf.backbones.vit import VisionTransformer
from moco_tf.data import image_ops, recipes
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.interop import embedding, naming_schemes, old_encoders, torch_file, training_state
from moco_tf.log import log
from moco_tf.pretraining import config as config_lib
from moco_tf.training import checkpoint as checkpoints

STANDARD_RECIPE = "moco:v2"  # for encoders without the config of their run
RULE = (
    "The checkpoint must be the workdir of a train.py run, one of its checkpoints "
    "(WORKDIR/checkpoints/step-N), an encoder's .keras or a PyTorch file"
)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An encoder and where it comes from; `embed` applies it to image files.

    Attributes:
        encoder: `Encoder`, which computes in float32, whatever it was trained in.
        path: file, or checkpoint of a run, that it was read from.
        digest: `digest` of the encoder.
        run: `pretraining.config.Config` of its run, or None for a file without a workdir.
        folder: folder of the run, or of the file.
    """

    encoder: Encoder
    path: str
    digest: str
    run: config_lib.Config | None

    @property
    def folder(self) -> str:
        folder = os.path.dirname(self.path)
        return os.path.dirname(folder) if checkpoints.step_path(self.path) else folder

    def embed(self, images: Sequence[str] | np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Unit-length embeddings of images, prepared as the run prepares them: float32 NxD.

        They are those of the SavedModel that `export` writes, to 1e-5.

        Args:
            images: paths of image files, local or gs://, or uint8 array NxHxWx3. A file that
                cannot be decoded gets zeros, and the log names it.
            batch_size: images in memory.

        Raises:
            FileNotFoundError: for a path that is no file.

        Example:

            embeddings = moco_tf.load("runs/v2").embed(glob.glob("photos/*.jpg"))
            similarity = embeddings @ embeddings.T
        """
        return self._embedder(images, batch_size)

    @functools.cached_property
    def _embedder(self):
        return embedding.Embedder(self.encoder, preprocessing(self))


def load(checkpoint: str, random_init: bool = False, seed: int = 0) -> Loaded:
    """Loads the encoder of a checkpoint; call it in the strategy's scope.

    Args:
        checkpoint: workdir of a train.py run, one of its checkpoints (RUN/checkpoints/step-N), an
            encoder's .keras file, or a PyTorch file of one of `naming_schemes.NAMING_SCHEMES`;
            local or gs://.
        random_init: replace the trained weights by new ones.
        seed: seed of the new weights.

    Raises:
        ValueError: if the checkpoint does not exist or cannot be read.
    """
    step_path = checkpoints.step_path(checkpoint)
    path = step_path or checkpoint
    if not path.endswith((".keras", *torch_file.ENDINGS)) and not step_path:
        path = os.path.join(checkpoint, "encoder.keras")
    if not tf.io.gfile.exists(f"{path}.index" if step_path else path):
        folder = os.path.dirname(path)
        missing = folder if folder and not tf.io.gfile.exists(folder) else path
        raise ValueError(f"{RULE}. Received: {checkpoint!r}; there is no {missing}. {_steps(path)}")
    run = _run_of(path)
    if step_path:
        encoder = training_state.encoder_at(path, _require_run(run, path))
    elif path.endswith(".keras"):
        encoder = _keras(path)
    else:
        encoder = training_state.encoder_of(naming_schemes.parse(torch_file.read(path)), repr(path))
    if random_init:
        keras.utils.set_random_seed(seed)
        encoder = encoder.clone()
    return Loaded(encoder, path, digest(encoder), run)


def _steps(path):
    """The checkpoints beside one that does not exist, in words; "" for another path."""
    folder = os.path.dirname(path)
    if not checkpoints.step_path(path) or not tf.io.gfile.isdir(folder):
        return ""
    names = [name for name in tf.io.gfile.listdir(folder) if name.endswith(".index")]
    return f"The run has kept {', '.join(sorted(n.removesuffix('.index') for n in names))}."


def _require_run(run, path):
    if run is None:
        raise ValueError(
            f"{RULE}. Received: {path!r}, without the config.json of its run two folders up."
        )
    return run


def _keras(path):
    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        unknown = re.search(r"Could not locate class '(\w+)'", str(error))
        if unknown:
            raise ValueError(
                f"{path} has a layer of your own, {unknown[1]}. Import the module that registers "
                "it first: --import=MODULE, with its folder in PYTHONPATH."
            ) from error
        raise ValueError(f"{RULE}. Received: {path!r}. Keras says: {error}") from error
    encoder = model if isinstance(model, Encoder) else old_encoders.convert(model)
    if encoder is None:
        raise ValueError(
            f"{RULE}, an `Encoder` of a backbone and a head. Received: {path!r}, with the layers "
            f"{', '.join(layer.name for layer in model.layers[:5])}. To export a classifier, name "
            "the workdir of its evaluation."
        )
    return in_float32(encoder)


def _run_of(path):
    is_step = checkpoints.step_path(path) is not None
    folder = os.path.dirname(os.path.dirname(path) if is_step else path)
    config = os.path.join(folder, "config.json")
    if not is_step and os.path.basename(path) != "encoder.keras":
        return None
    if not tf.io.gfile.exists(config):
        return None
    try:
        with tf.io.gfile.GFile(config) as file:
            values = json.load(file)
        return None if "task" in values else config_lib.from_json(values)
    except ValueError as error:
        raise ValueError(
            f"{config} must be the config of the run that made encoder.keras. Received: {error} "
            "To use the encoder without its run, copy encoder.keras into an empty folder and give "
            "that file as `--checkpoint`. Then also set the image size and the recipe that it was "
            "trained with."
        ) from error


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for an encoder: resize, center crop, normalization.

    Attributes:
        recipe: `Recipe` whose normalization is used.
        image_size_px: side of the center crop.
        resize_px: short side of the image before the crop.
        decode: function from encoded bytes to an image, see `image_ops.decode`.
    """

    recipe: Recipe
    image_size_px: int
    resize_px: int
    decode: Callable = image_ops.decode

    def to_dict(self) -> dict:
        """JSON-ready facts, from which `from_dict` makes it again."""
        return {
            "resize_px": self.resize_px,
            "image_size_px": self.image_size_px,
            "mean": list(self.recipe.mean),
            "std": list(self.recipe.std),
            **getattr(self.decode, "keywords", {}),
        }

    @classmethod
    def from_dict(cls, facts: dict) -> "Preprocessing":
        """Makes it of what `to_dict` gave."""
        normalization = {name: tuple(facts[name]) for name in ("mean", "std")}
        recipe = dataclasses.replace(recipes.find(STANDARD_RECIPE), **normalization)
        options = {name: facts[name] for name in ("max_pixels", "white") if name in facts}
        decode = functools.partial(image_ops.decode, **options)
        return cls(recipe, facts["image_size_px"], facts["resize_px"], decode)


def preprocessing(
    loaded: Loaded,
    image_size_px: int | None = None,
    resize_px: int | None = None,
    recipe: str | None = None,
) -> Preprocessing:
    """The `Preprocessing` of an encoder: as given, else as in its run, else as on ImageNet.

    An encoder whose input has a fixed size gets images of that size.

    Args:
        loaded: encoder.
        image_size_px: side of the center crop; None: the run's.
        resize_px: short side of the image before the crop; None: the run's.
        recipe: address of the recipe; None: the run's.

    Raises:
        ValueError: for a crop larger than the resized image or of another size than the encoder
            takes, or an unknown recipe.
    """
    require_color(loaded.encoder)
    run = loaded.run
    fixed = loaded.encoder.image_size_px
    size = image_size_px or fixed or (run.data.image_size_px if run else 224)
    loaded.encoder.require_image_size(size, "image_size_px")
    resize = resize_px
    if not resize and run and size == run.data.image_size_px:
        resize = run.monitor.resize_px
    resize = resize or round(size * 8 / 7)
    if resize < size:
        raise ValueError(
            f"`resize_px` must be at least the image size, {size}. Received: {resize}."
        )
    if not run and not ((image_size_px or fixed) and recipe):
        log.warning(
            "The encoder is a file without its run: it gets %d px images, normalized as by %s. "
            "If it was trained with others, set image_size_px and recipe.",
            size,
            recipe or STANDARD_RECIPE,
        )
    decode = run.data.decode if run else image_ops.decode
    return Preprocessing(recipe_of(loaded, recipe), size, resize, decode)


def recipe_of(loaded: Loaded, recipe: str | None = None) -> Recipe:
    """The `Recipe` of an address, else the one of the encoder's run, else ImageNet's."""
    require_color(loaded.encoder)
    default = loaded.run.data.recipe if loaded.run else STANDARD_RECIPE
    return recipes.find(recipe or default, "recipe")


def digest(model: keras.Model) -> str:
    """SHA-256 of all weights of a model, hexadecimal."""
    sha = hashlib.sha256()
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            value = variable.numpy()
            sha.update(f"{variable.path} {value.dtype} {value.shape}".encode())
            sha.update(value.tobytes())
    return sha.hexdigest()


def finetuned_backbone(encoder: Encoder, bn_group_size: int | None = None) -> keras.Model:
    """The backbone to fine-tune, whose BN normalizes `bn_group_size` rows together.

    Args:
        encoder: pre-trained encoder.
        bn_group_size: rows that share BN statistics; None for all rows of a replica.

    Returns:
        A copy of the backbone if it is a ResNet or a ViT, whose patch projection is then trained,
        too; else the backbone itself.

    Raises:
        ValueError: if `bn_group_size` is given and the backbone is no ResNet.
    """
    if isinstance(encoder.backbone, ResNet) or bn_group_size:
        return require_resnet(encoder.backbone).rebuild(bn_group_size=bn_group_size)
    if isinstance(encoder.backbone, VisionTransformer):
        return encoder.backbone.unfrozen()
    return encoder.backbone


def require_backbone(loaded: Loaded, name: str | None):
    """Raises ValueError if the encoder's backbone has another name; None allows any name."""
    received = loaded.encoder.backbone.name
    if name and name != received:
        raise ValueError(
            f"The checkpoint's backbone must be {name}, as `--config.backbone` says. Received: "
            f"{received}, in {loaded.path}."
        )
