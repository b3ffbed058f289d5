"""Shows the images that are most like some others, as an HTML page.

    python -m moco_tf search RUN IMAGE ... FOLDER-OR-FILE [--k=10] [--output=search.html]

Each IMAGE is looked for among the images of FOLDER, which are embedded first (see embed), or of
FILE, the embeddings of some images. The search is exact, by the cosine of the backbone's features.
"""

import os

from absl import flags

from moco_tf import encoders, storage
from moco_tf.commands import script
from moco_tf.commands.embed import embed
from moco_tf.evaluation import embeddings, search
from moco_tf.evaluation.embedding_parts import FORMATS
from moco_tf.probes import knn
from moco_tf.reports import pages

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags; not at import, so that other commands can import this."""
    flags.DEFINE_integer("k", 10, "Number of images to show for each.", lower_bound=1)
    flags.DEFINE_string("output", None, "Page to write; default: search.html in the run's folder.")


def check(rest):
    """Refuses a command without a run, queries and images."""
    if len(rest) < 3:
        raise ValueError(
            "Name a run, images to look for, and a folder or a file of embeddings: search RUN "
            f"IMAGE ... FOLDER. Received: {' '.join(rest) or 'nothing'}."
        )


def write_page(run: str, queries: list[str], images: str, k: int, output: str | None = None) -> str:
    """Writes the page of the images that are most like some others.

    Args:
        run: path of the encoder, see `encoders.load`.
        queries: image files.
        images: file of `embed`, or folder or address to embed first.
        k: number of images to show for each query.
        output: page to write; None: search.html in the run's folder.

    Returns:
        Path of the page.
    """
    bank = embeddings.read(images if images.endswith(FORMATS) else embed(run, images))
    loaded = encoders.load(run)
    if bank.encoder not in (None, loaded.digest):
        raise ValueError(
            f"The embeddings must be by the encoder of {run!r}. Received: {images!r}, by another "
            "one. Embed the images again."
        )
    wanted = embeddings.of_files(loaded, queries)
    cosine, index = knn.nearest(bank.vectors, wanted.vectors, k + 1)  # one may be the query itself
    rows = []
    for query, numbers, values in zip(queries, index, cosine, strict=True):
        found = [
            (name, value)
            for name, value in zip(bank.names[numbers], values, strict=True)
            if os.path.realpath(name) != os.path.realpath(query)
        ]
        names, similarities = zip((query, 1.0), *found[:k], strict=True)
        rows.append(search.row(query, names, similarities))
    output = output or os.path.join(loaded.folder, "search.html")
    headline = f"First the image looked for, then the most similar of {len(bank.names)}."
    storage.write_text(output, pages.page(f"search: {run}", headline, rows))
    return output


def main(rest):
    """The command."""
    run, *queries, images = rest
    print(write_page(run, queries, images, FLAGS.k, FLAGS.output))


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
