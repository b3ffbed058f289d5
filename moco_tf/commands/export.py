"""Takes an encoder elsewhere.

    python -m moco_tf export --checkpoint=WORKDIR-OR-FILE --format=FORMAT --output=PATH

savedmodel            a folder of versions for TensorFlow Serving; also of the workdir of a
                      finished segmentation, which gives label maps, or detection, which gives
                      boxes, classes and scores, and with their heads masks and keypoints
keras                 a .keras file; --part=backbone leaves the head out
onnx                  an ONNX file with features and embeddings
torch                 what the official main_moco.py saves: of a workdir, all of the run
torchvision           a state dict of the backbone
torchvision_detection, mmdetection, detectron2
                      the backbone as these take it; detectron2's is a .pkl
"""

import os

import tensorflow as tf
from absl import flags

from moco_tf import encoders, interop, schema
from moco_tf.commands import script
from moco_tf.detection.serving import export_detection
from moco_tf.evaluation import results
from moco_tf.interop import naming_schemes, torch_file, training_state, weights
from moco_tf.segmentation.serving import export_segmentation
from moco_tf.storage import save_model

FLAGS = flags.FLAGS
FORMATS = {
    "savedmodel": None,
    "keras": ".keras",
    "onnx": ".onnx",
    "torch": torch_file.ENDINGS,
    "torchvision": torch_file.ENDINGS,
    "torchvision_detection": torch_file.ENDINGS,
    "mmdetection": torch_file.ENDINGS,
    "detectron2": ".pkl",
}
# What a task leaves in its workdir, and what makes a SavedModel of it.
TASKS = {"segmenter.keras": export_segmentation, "detector.keras": export_detection}

SERVED = ("image_size_px", "resize_px", "recipe", "classifier", "bfloat16", "jit_compile")


def export(checkpoint, kind, output, part="encoder", **options):
    """Writes an encoder in a format, or a finished task as a SavedModel.

    Args:
        checkpoint: same as in `encoders.load`; for "savedmodel" also the workdir of one of `TASKS`.
        kind: of `FORMATS`.
        output: folder ("savedmodel") or file, local or gs://.
        part: "encoder" or "backbone", for "keras".
        options: of `export_server`, for "savedmodel" of an encoder.

    Returns:
        The path of what was written.

    Raises:
        ValueError: for a checkpoint that cannot be read, or not be written so.
    """
    if kind == "savedmodel":
        for name, export_task in TASKS.items():
            if tf.io.gfile.exists(os.path.join(checkpoint, name)):
                _refuse_options(options)
                return export_task(checkpoint, output)
    loaded = encoders.load(checkpoint)
    if kind == "savedmodel":
        return export_server(loaded, output, **options)
    tf.io.gfile.makedirs(os.path.dirname(output) or ".")
    if kind == "keras":
        model = loaded.encoder if part == "encoder" else loaded.encoder.backbone
        save_model(model, output)
    elif kind == "onnx":
        interop.export_onnx(loaded.encoder, output)
    elif kind == "torch":
        arch = loaded.encoder.backbone.name
        interop.export_official(_state(loaded, checkpoint), output, arch, loaded.run)
    else:
        write = getattr(interop, f"export_{kind}")
        write(naming_schemes.State(query=weights.arrays_of(loaded.encoder)), output)
    return output


def _refuse_options(options):
    given = [name for name, value in options.items() if value]
    if given:
        raise ValueError(
            "The SavedModel of a segmentation or detection has no options: it takes images as the "
            f"run's test does. Received: {', '.join(given)}. Leave them out."
        )


def export_server(
    loaded,
    output,
    *,
    image_size_px=None,
    resize_px=None,
    recipe=None,
    classifier=None,
    bfloat16=False,
    jit_compile=False,
):
    """`interop.export_savedmodel` of a `Loaded` encoder, preprocessed as its run evaluates it.

    Args:
        loaded: `encoders.Loaded`.
        output: folder.
        image_size_px, resize_px, recipe: same as in `encoders.preprocessing`.
        classifier: workdir of a linear evaluation of this encoder, if any.
        bfloat16, jit_compile: same as in `interop.export_savedmodel`.
    """
    crop = encoders.preprocessing(loaded, image_size_px, resize_px, recipe)
    head = encoders.load_classifier(classifier, loaded) if classifier else None
    metadata = {
        "checkpoint": {"path": loaded.path, "sha256": loaded.digest},
        "config": schema.to_dict(loaded.run) if loaded.run else None,
        "preprocessing": {
            "resize_px": crop.resize_px,
            "image_size_px": crop.image_size_px,
            "mean": crop.recipe.mean,
            "std": crop.recipe.std,
        },
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


def _state(loaded, checkpoint):
    """The whole run of a workdir or of a PyTorch file, else the encoder alone."""
    if loaded.run and not checkpoint.endswith(".keras"):
        return training_state.read(checkpoint, loaded.run)
    if checkpoint.endswith(torch_file.ENDINGS):
        return naming_schemes.parse(torch_file.read(checkpoint))
    return naming_schemes.State(query=weights.arrays_of(loaded.encoder))


def define_flags():
    """Here, so that a script with other flags can import this module."""
    flags.DEFINE_string(
        "checkpoint", None, "Workdir of a run, an encoder.keras or a PyTorch file.", required=True
    )
    flags.DEFINE_enum("format", None, list(FORMATS), "What to make.", required=True)
    flags.DEFINE_string("output", None, "File or folder, local or gs://.", required=True)
    flags.DEFINE_enum("part", "encoder", ["encoder", "backbone"], "keras: what to save.")
    flags.DEFINE_integer("image_size_px", None, "savedmodel: centre crop; default: the run's.", 1)
    flags.DEFINE_integer("resize_px", None, "savedmodel: short side before; default: the run's.", 1)
    flags.DEFINE_string("recipe", None, "savedmodel: whose normalisation; default: the run's.")
    flags.DEFINE_string(
        "classifier", None, "savedmodel: workdir of a linear evaluation, for class scores."
    )
    flags.DEFINE_bool("bfloat16", False, "savedmodel: compute in bfloat16.")
    flags.DEFINE_bool("jit_compile", False, "savedmodel: compile by XLA.")


def check(rest):
    """Refuses flags that do not go together."""
    script.only_flags(rest)
    kind, ending = FLAGS.format, FORMATS[FLAGS.format]
    if ending and not FLAGS.output.endswith(ending):
        endings = ", ".join([ending] if isinstance(ending, str) else ending)
        raise ValueError(
            f"`--output` must be a file with the ending {endings} for --format={kind}. Received: "
            f"{FLAGS.output}."
        )
    for name, goes_with in {"part": "keras", **dict.fromkeys(SERVED, "savedmodel")}.items():
        if FLAGS[name].present and kind != goes_with:
            raise ValueError(
                f"`--{name}` goes with --format={goes_with}. Received: --format={kind}."
            )


def main(_):
    """The command."""
    options = {name: FLAGS[name].value for name in SERVED} if FLAGS.format == "savedmodel" else {}
    print(export(FLAGS.checkpoint, FLAGS.format, FLAGS.output, FLAGS.part, **options))


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
