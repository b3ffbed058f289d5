"""Embeds images with a trained encoder.

    python -m moco_tf embed RUN FOLDER [--output=x.npz]

RUN is the workdir of a run, or an encoder's file. FOLDER may also be the address of a source, such
as tfds:cifar10:test. The file has for each image its name, embedding (unit length), feature,
and ok, which is false if it cannot be decoded; see moco_tf/evaluation/embeddings.py. Without
--output it is put into RUN. The same command goes on where it was stopped.
"""

import os
import shlex

from absl import flags

from moco_tf import encoders
from moco_tf.commands import script
from moco_tf.data import sources
from moco_tf.evaluation import embeddings
from moco_tf.evaluation.embedding_parts import check_output

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags; not at import, so that other commands can import this."""
    flags.DEFINE_string("output", None, "File to write, .npz or .parquet; default: RUN/FOLDER.npz.")


def check(rest):
    """Refuses a command without a run and images."""
    if len(rest) != 2:
        raise ValueError(f"Name a run and a folder: embed RUN FOLDER. Received: {' '.join(rest)}.")
    if FLAGS.output:
        check_output(FLAGS.output)


def embed(run: str, images: str, output: str | None = None) -> str:
    """Writes the embeddings of a folder's images, or what is missing of them.

    Args:
        run: path of the encoder, see `encoders.load`.
        images: folder, or address of a source.
        output: .npz or .parquet file; None: in the run's folder, named by the images' folder.

    Returns:
        Path of the file.
    """
    loaded = encoders.load(run)
    address = images if ":" in images else f"folder:{images}"
    decode = loaded.run.data.decode if loaded.run else None
    options = {"decode": decode} if decode else {}
    source = sources.open_source(address, field="FOLDER", **options)
    name = os.path.basename(address.partition(":")[2].rstrip("/")) or "images"
    output = output or os.path.join(loaded.folder, f"{name}.npz")
    embeddings.write(loaded, source, output, title="images")
    return output


def main(rest):
    """The command."""
    run, images = rest
    output = embed(run, images, FLAGS.output)
    quoted = shlex.quote(output)
    print(f"{output}\nNext:\n  python -m moco_tf search {shlex.quote(run)} IMAGE {quoted}")
    print(f"  python -m moco_tf duplicates {quoted}")


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
