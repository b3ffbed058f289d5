"""Shows groups of images that are nearly the same, as CSV and as an HTML page.

    python -m moco_tf duplicates EMBEDDINGS [--threshold=0.98]

Images are in one group if their features have a cosine of at least --threshold, or those of others
between them have. It writes EMBEDDINGS.duplicates.csv (group, image, similarity to the group's
first) and EMBEDDINGS.duplicates.html.
"""

import csv
import io
import os

from absl import flags

from moco_tf import storage
from moco_tf.commands import script
from moco_tf.evaluation import embeddings, search
from moco_tf.evaluation.embedding_parts import FORMATS
from moco_tf.probes.quality import NEAR_DUPLICATE
from moco_tf.reports import pages

FLAGS = flags.FLAGS
SHOWN_GROUPS, SHOWN_IMAGES = 100, 12  # in the page; the CSV has all


def define_flags():
    """Defines the flags; not at import, so that other commands can import this."""
    flags.DEFINE_float("threshold", NEAR_DUPLICATE, "Least similarity of near-duplicates.", -1, 1)


def check(rest):
    """Refuses anything but one file."""
    if len(rest) != 1 or not rest[0].endswith(FORMATS):
        raise ValueError(
            f"Name a file that `embed` has written. Received: {' '.join(rest) or 'nothing'}."
        )


def write(path: str, threshold: float) -> tuple[int, str]:
    """Writes the groups of near-duplicates of a file of embeddings.

    Args:
        path: file of embeddings, see `embeddings.read`.
        threshold: least cosine of a pair.

    Returns:
        Number of groups, and path of the CSV file; the page is beside it.
    """
    names, vectors, _ = embeddings.read(path)
    table, rows = io.StringIO(), []
    writer = csv.writer(table)
    writer.writerow(["group", "image", "similarity"])
    groups = search.groups(vectors, threshold)
    for number, members in enumerate(groups, 1):
        similarities = vectors[members] @ vectors[members[0]]
        for member, similarity in zip(members, similarities, strict=True):
            writer.writerow([number, names[member], f"{similarity:.4f}"])
        if number <= SHOWN_GROUPS:
            shown = slice(SHOWN_IMAGES)
            title = f"{number}: {len(members)} images"
            rows.append(search.row(title, names[members[shown]], similarities[shown]))
    output = os.path.splitext(path)[0] + ".duplicates"
    storage.write_text(f"{output}.csv", table.getvalue())
    headline = (
        f"{len(groups)} groups among {len(names)} images. Pairs with a cosine of {threshold} or "
        "more connect the images of a group; below each stands its cosine to the first. If a group "
        "mixes different images, raise --threshold."
    )
    storage.write_text(f"{output}.html", pages.page(f"duplicates: {path}", headline, rows))
    return len(groups), f"{output}.csv"


def main(rest):
    """The command."""
    count, output = write(rest[0], FLAGS.threshold)
    print(f"{count} groups\n{output}\n{output.removesuffix('csv')}html")


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
