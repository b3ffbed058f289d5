"""Source "tfds:NAME": TensorFlow Datasets, prepared on disk (offline) or downloaded by TFDS."""

import math

import tensorflow as tf

from moco_tf.data.sources.source import Source, from_arrays
from moco_tf.data.sources.stream import Stream

ADDRESSES = ("tfds:NAME[/CONFIG][:SPLIT]",)
# Images of one known size are held in memory, decoded, up to this many bytes.
MEMORY_LIMIT = 2 << 30


def open(rest: str, data_dir: str | None = None, **_) -> Source | Stream:
    """Opens "tfds:NAME[/CONFIG][:SPLIT]", SPLIT "train" by default, also as "train[:10%]".

    Raises:
        ValueError: for an unknown name or split, data without images, or data that TFDS cannot get.
    """
    import tensorflow_datasets as tfds

    name, _, split = rest.partition(":")
    builder = _builder(name, data_dir)
    split = split or "train"
    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The split must be one of {', '.join(builder.info.splits)}. Received: {rest!r}."
        ) from error
    if "image" not in builder.info.features:
        raise ValueError(
            f"A TFDS data set must have an `image` feature. Received: {name!r}, which has "
            f"{', '.join(builder.info.features)}."
        )
    image = builder.info.features["image"]
    label = dict(builder.info.features.items()).get("label")
    classes = tuple(getattr(label, "names", ()))
    if None not in image.shape and math.prod(image.shape) * info.num_examples <= MEMORY_LIMIT:
        read_config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
        data = tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=-1, read_config=read_config)
        )
        images = data["image"]
        if images.shape[-1] == 1:
            images = images.repeat(3, axis=-1)
        return from_arrays(images, data.get("label"), classes)

    decoders = {"image": tfds.decode.SkipDecoding()}
    features = tfds.features.FeaturesDict(
        {k: v for k, v in builder.info.features.items() if k in ("image", "file_name", "label")}
    )

    def parse(record):
        example = features.deserialize_example(record, decoders=decoders)
        name = example.get("file_name", tf.constant(""))
        return example["image"], name, example.get("label", tf.constant(-1, tf.int64))

    return Stream(
        num_examples=info.num_examples,
        shards=tuple(_shard(instruction) for instruction in info.file_instructions),
        parse=parse,
        classes=classes,
    )


def labelled_splits(rest: str, data_dir: str | None = None) -> tuple[str, str] | None:
    """The data set's train split and its test or validation split, if it has labels."""
    name = rest.partition(":")[0]
    info = _builder(name, data_dir).info
    # ImageNet's test images have no labels.
    held_out = ("validation",) if name.startswith("imagenet") else ("test", "validation")
    held_out = [s for s in held_out if s in info.splits]
    if "label" not in info.features or "train" not in info.splits or not held_out:
        return None
    return f"tfds:{name}:train", f"tfds:{name}:{held_out[0]}"


def _shard(instruction):
    """Path, skip and take of one of TFDS' file instructions."""
    take = instruction.take
    if take < 0:
        take = instruction.examples_in_shard - instruction.skip
    return str(instruction.filename), instruction.skip, take


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    builder = None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if hasattr(builder, "is_prepared"):
            is_prepared = builder.is_prepared()
        else:
            is_prepared = bool(builder.info.splits)
        if not is_prepared:
            builder.download_and_prepare()
    except Exception as error:
        text = str(error).strip()
        if not getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None):
            text = text.partition("\n")[0]  # a list of all data sets may follow
        raise ValueError(
            "`tfds:NAME` must be a data set that TFDS has prepared, or can download. Received: "
            f"{name!r} with data_dir={data_dir!r}. TFDS says: {text}"
        ) from error
    return builder
