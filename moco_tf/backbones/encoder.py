"""The encoder that MoCo trains: a backbone with a projection head."""

from collections.abc import Callable

import keras
from keras import layers


@keras.saving.register_keras_serializable("moco_tf")
class Encoder(keras.Model):
    """A backbone and a head: images to NxD float32 embeddings, not normalized.

    Args:
        backbone: functional or built Sequential `keras.Model` from images to NxC features.
        head: what maps the features to NxD embeddings: `heads.linear()`, `heads.mlp()`, any Keras
            layer, or any function of a symbolic tensor. None: the embeddings are the features.
        name: name of the model.

    Attributes:
        backbone: the given one.
        head: `keras.Layer` (the given one, or a `keras.Model` around the given function), or None.

    Raises:
        ValueError: for a backbone or a head that does not give one vector an image.

    Example:

        encoder = Encoder(resnet.resnet18(stem="cifar"), heads.mlp(dim=128))
        encoder(np.zeros([2, 32, 32, 3])).shape  # 2 x 128
        encoder.backbone(np.zeros([2, 32, 32, 3])).shape  # 2 x 512

    Register layers of your own with `keras.saving.register_keras_serializable`: Keras needs it to
    load the encoder from a file.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.layers.Layer | Callable | None = None,
        name: str = "encoder",
    ):
        images = keras.Input(_input_shape(backbone)[1:], name="images")
        features = backbone(images)  # NxC
        _require_rows(features, "`backbone` must map images to features, NxC")
        if head is not None and not isinstance(head, layers.Layer):
            head = _wrap(head, features.shape[1:])
        embeddings = features if head is None else head(features)  # NxD
        _require_rows(embeddings, "`head` must map features to embeddings, NxD")
        # Similarities and the loss are float32, also under mixed_bfloat16.
        embeddings = layers.Activation("linear", dtype="float32", name="embeddings")(embeddings)
        super().__init__(images, embeddings, name=name)
        self.backbone = backbone
        self.head = head
        self._features = features

    @property
    def image_size_px(self) -> int | None:
        """Side of the images that the encoder takes, in px; None for any."""
        return self.input_shape[1]

    def require_image_size(self, size_px: int, field: str):
        """Raises ValueError, naming the option `field`, unless images of this side can be used."""
        if self.image_size_px not in (None, size_px):
            raise ValueError(
                f"`{field}` must be {self.image_size_px}, the size of the encoder's input. "
                f"Received: {size_px}. Set it, or build the backbone on Input((None, None, 3))."
            )
        patch_px = getattr(self.backbone, "patch_px", 1)
        if size_px % patch_px:
            raise ValueError(
                f"`{field}` must be a multiple of {patch_px}, the side of the backbone's patches. "
                f"Received: {size_px}."
            )

    def features_and_embeddings(self) -> keras.Model:
        """The same encoder with two outputs: NxC features of the backbone, and NxD embeddings."""
        return keras.Model(self.input, [self._features, self.output])

    def clone(self) -> "Encoder":
        """An encoder of the same architecture with new weights."""
        head = None if self.head is None else _clone(self.head)
        return Encoder(_clone(self.backbone), head, name=self.name)

    def get_config(self):
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("backbone", "head")
        }
        return cls(**{**config, **parts})


def require_color(model: keras.Model):
    """Raises ValueError unless a model takes images of three channels, as image files have."""
    channels = model.input_shape[-1]
    if channels != 3:
        raise ValueError(
            f"The encoder takes {channels} channels, images have 3. Received: {model.name}. "
            "Compute features of arrays by `encoder.backbone(arrays)`, and compare them by "
            "`moco_tf.probes.knn.accuracy`."
        )


def _clone(layer):
    # `clone_model` copies layers that are not registered. It keeps no class but Keras' own.
    if isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras."):
        return keras.models.clone_model(layer)
    return type(layer).from_config(layer.get_config())


def _wrap(head, shape):
    """A `keras.Model` of a function from features to embeddings."""
    # float32 also under mixed_bfloat16: the layers cast it, and a copy in float32 loses nothing.
    features = keras.Input(shape, dtype="float32", name="features")
    embeddings = head(features)
    _require_rows(embeddings, "`head` must map features to embeddings, NxD")
    return keras.Model(features, embeddings, name="head")


def _input_shape(backbone):
    shape = getattr(backbone, "input_shape", None)
    if shape is None:
        raise ValueError(
            "`backbone` must be a functional or a built Sequential `keras.Model`. Received: "
            f"{backbone!r}. Wrap a subclassed one: `keras.Model(images, subclassed(images))`."
        )
    return shape


def _require_rows(x, rule):
    if not isinstance(x, keras.KerasTensor):
        raise ValueError(f"{rule}. Received: {x!r}. Is it `heads.mlp` instead of `heads.mlp()`?")
    if len(x.shape) != 2:
        raise ValueError(f"{rule}. Received: an output of shape {x.shape}.")
