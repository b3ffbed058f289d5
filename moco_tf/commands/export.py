"""Exports an encoder or a finished task: SavedModel, Keras, ONNX, PyTorch formats.

    python -m moco_tf export --checkpoint=WORKDIR-OR-FILE --format=FORMAT --output=PATH

savedmodel            a folder of versions for TensorFlow Serving. The checkpoint can also be the
                      workdir of a finished linear, linear_cached or finetune evaluation (class
                      scores), segmentation (label maps) or detection (boxes, classes, scores; masks
                      and keypoints if it has these heads)
keras                 a .keras file; --part=backbone leaves the head out and loads without moco_tf
onnx                  an ONNX file with features and embeddings
torch                 a checkpoint as saved by the official main_moco.py; with a workdir it holds
                      the whole training state. A ViT has the names of MoCo v3's
torchvision           a state dict of the backbone
timm                  a state dict of a ViT's backbone
torchvision_detection, mmdetection, detectron2
                      the backbone for these detectors; detectron2's file is a .pkl
"""

import functools
import os
import shlex

import keras
import tensorflow as tf
from absl import flags

from moco_tf import encoders, interop, schema
from moco_tf.backbones import resnet, vit
from moco_tf.commands import script
from moco_tf.evaluation import results
from moco_tf.evaluation.serving import load_classifier
from moco_tf.evaluation.task import find_of
from moco_tf.interop import naming_schemes, read_back, torch_file, training_state, weights
from moco_tf.training.checkpoint import step_path

FLAGS = flags.FLAGS
FORMATS = {
    "savedmodel": None,
    "keras": ".keras",
    "onnx": ".onnx",
    "torch": torch_file.ENDINGS,
    "torchvision": torch_file.ENDINGS,
    "timm": torch_file.ENDINGS,
    "torchvision_detection": torch_file.ENDINGS,
    "mmdetection": torch_file.ENDINGS,
    "detectron2": ".pkl",
}
SERVED = ("image_size_px", "resize_px", "recipe", "classifier", "bfloat16", "jit_compile")


def export(
    checkpoint: str, export_format: str, output: str, part: str = "encoder", **options
) -> str:
    """Writes an encoder in a format, or a finished task as a SavedModel.

    Args:
        checkpoint: path of the encoder, see `encoders.load`; for "savedmodel" also the workdir of
            a finished evaluation, see `Task.export`.
        export_format: key of `FORMATS`, such as "onnx".
        output: folder ("savedmodel") or file (others) to write, local or gs://.
        part: for "keras": "encoder", or "backbone" to leave the head out.
        options: for "savedmodel" of an encoder: keyword arguments of `export_server`.

    Returns:
        Path that was written.

    Raises:
        ValueError: if the checkpoint cannot be read, or cannot be exported to this format.
    """
    task_class = find_of(checkpoint) if export_format == "savedmodel" else None
    if task_class:
        _refuse_options(options)
        return task_class.export(checkpoint, output)
    loaded = encoders.load(checkpoint)
    if export_format == "savedmodel":
        return export_server(loaded, output, **options)
    tf.io.gfile.makedirs(os.path.dirname(output) or ".")
    if export_format == "onnx":
        interop.export_onnx(loaded.encoder, output)
    elif export_format == "keras":
        encoder, is_part = loaded.encoder, part == "backbone"
        network = interop.plain_keras(encoder.backbone) if is_part else encoder
        read = functools.partial(keras.models.load_model, compile=False)
        read_back.write_checked(output, network.save, read, network)
    else:
        _export_torch(loaded, checkpoint, export_format, output)
    return output


def _export_torch(loaded, checkpoint, export_format, output):
    """Writes an encoder in a format of PyTorch."""
    encoder = loaded.encoder
    if export_format == "torch":
        network = encoder
        state = _state(loaded, checkpoint)
        write = functools.partial(
            interop.export_official, state, arch=encoder.backbone.name, config=loaded.run
        )
    else:
        require = vit.require_vit if export_format == "timm" else resnet.require_resnet
        network = require(encoder.backbone)  # any head will do: these formats have none
        state = _state_of(network, loaded)
        write = functools.partial(getattr(interop, f"export_{export_format}"), state)
    read = functools.partial(read_back.read_torch, export_format=export_format, network=network)
    read_back.write_checked(output, write, read, network)


def _refuse_options(options):
    given = [name for name, value in options.items() if value]
    if given:
        raise ValueError(
            "The SavedModel of an evaluation has no options, because it takes images as the "
            f"evaluation's test does. Received: {', '.join(given)}. Leave them out."
        )


def export_server(
    loaded: encoders.Loaded,
    output: str,
    *,
    image_size_px: int | None = None,
    resize_px: int | None = None,
    recipe: str | None = None,
    classifier: str | None = None,
    bfloat16: bool = False,
    jit_compile: bool = False,
) -> str:
    """Writes an encoder as a SavedModel, preprocessed as its run evaluates it.

    Args:
        loaded: encoder.
        output: folder of the versions, local or gs://.
        image_size_px: side of the center crop; None: the run's.
        resize_px: short side of the image before the crop; None: the run's.
        recipe: address of the recipe whose normalization is used; None: the run's.
        classifier: workdir of a linear evaluation of this encoder, for class scores, or None. All
            images are then prepared as in its test.
        bfloat16: compute the network in bfloat16.
        jit_compile: compile the network by XLA, for each batch size.

    Returns:
        Path of the version's folder.
    """
    head = None
    if classifier:
        _refuse_preprocessing(image_size_px=image_size_px, resize_px=resize_px, recipe=recipe)
        saved = load_classifier(classifier, loaded)
        head, crop = saved.head, saved.crop
    else:
        crop = encoders.preprocessing(loaded, image_size_px, resize_px, recipe)
    metadata = {
        "checkpoint": {"path": loaded.path, "sha256": loaded.digest},
        "config": schema.to_dict(loaded.run) if loaded.run else None,
        "preprocessing": crop.to_dict(),
        "classes": list(head[2]) if head else None,
        "bfloat16": bfloat16,
        "jit_compile": jit_compile,
        "versions": results.versions(),
    }
    return interop.export_savedmodel(
        loaded.encoder,
        output,
        crop,
        classifier=head,
        bfloat16=bfloat16,
        jit_compile=jit_compile,
        metadata=metadata,
    )


def _refuse_preprocessing(**options):
    given = [f"{name}={value}" for name, value in options.items() if value]
    if given:
        raise ValueError(
            "With `--classifier` images are prepared as in its evaluation's test. Received: "
            f"{', '.join(given)}. Leave it out, or evaluate with it."
        )


def _state(loaded, checkpoint):
    """The training state of a workdir or a PyTorch file; the encoder alone of a .keras file."""
    if loaded.run and not checkpoint.endswith(".keras"):
        return training_state.read(loaded.folder, loaded.run, step_path(checkpoint))
    if checkpoint.endswith(torch_file.ENDINGS):
        return naming_schemes.parse(torch_file.read(checkpoint))
    return _state_of(loaded.encoder, loaded)


def _state_of(network, loaded):
    """The weights of a network alone, of images as its run has them."""
    state = naming_schemes.State(query=weights.arrays_of(network))
    if loaded.run:
        state.image_size_px = loaded.run.data.image_size_px
    return state


def define_flags():
    """Defines the flags; not at import, so that commands with other flags can import this."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Workdir of a run, an encoder.keras or a PyTorch file; savedmodel: also of an evaluation.",
    )
    flags.DEFINE_enum("format", None, list(FORMATS), "Format to write.")
    flags.DEFINE_string("output", None, "File or folder, local or gs://.")
    flags.DEFINE_enum("part", "encoder", ["encoder", "backbone"], "keras: what to save.")
    flags.DEFINE_integer("image_size_px", None, "savedmodel: center crop; default: the run's.", 1)
    flags.DEFINE_integer(
        "resize_px", None, "savedmodel: short side before the crop; default: the run's.", 1
    )
    flags.DEFINE_string(
        "recipe", None, "savedmodel: recipe of the normalization; default: the run's."
    )
    flags.DEFINE_string(
        "classifier", None, "savedmodel: workdir of a linear evaluation of it, for class scores."
    )
    flags.DEFINE_bool("bfloat16", False, "savedmodel: compute in bfloat16.")
    flags.DEFINE_bool("jit_compile", False, "savedmodel: compile by XLA.")


def check(rest):
    """Refuses flags that do not go together."""
    script.only_flags(rest)
    for name in ("checkpoint", "format", "output"):
        if not FLAGS[name].value:
            raise ValueError(
                f"`--{name}` must be given, as in export --checkpoint=runs/v2 --format=savedmodel "
                "--output=served/moco."
            )
    extension = FORMATS[FLAGS.format]
    if extension and not FLAGS.output.endswith(extension):
        extensions = ", ".join([extension] if isinstance(extension, str) else extension)
        raise ValueError(
            f"`--output` must be a file with the extension {extensions} for "
            f"--format={FLAGS.format}. Received: {FLAGS.output}."
        )
    for name, goes_with in {"part": "keras", **dict.fromkeys(SERVED, "savedmodel")}.items():
        if FLAGS[name].present and FLAGS.format != goes_with:
            raise ValueError(
                f"`--{name}` can only be given with --format={goes_with}. Received: "
                f"--format={FLAGS.format}."
            )


def main(_):
    """The command."""
    options = {name: FLAGS[name].value for name in SERVED} if FLAGS.format == "savedmodel" else {}
    print(export(FLAGS.checkpoint, FLAGS.format, FLAGS.output, FLAGS.part, **options))
    if FLAGS.format == "savedmodel" and "://" not in FLAGS.output:
        print(next_command(FLAGS.output))


def next_command(output: str) -> str:
    """Text that names the command which serves a folder of SavedModels."""
    volume = shlex.quote(f"{os.path.abspath(output)}:/models/moco")
    ports = "-p 8500:8500 -p 8501:8501"
    return f"Next:\n  docker run {ports} -v {volume} -e MODEL_NAME=moco tensorflow/serving"


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
