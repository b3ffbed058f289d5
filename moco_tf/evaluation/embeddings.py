"""Files of embeddings: written for any number of images in constant memory, and read.

An .npz or .parquet file of these arrays, which the client of a server writes, too:

    name: N texts, paths of the images.
    embedding: float32 NxD of unit length, what the pretext task compares.
    feature: float32 NxC, the backbone's. Searches use it: it tells classes apart better than the
        embedding, which the pretext task makes blind to what augmentation changes (MoCo v2,
        SimCLR section 4.2).
    ok: bool N, false where an image cannot be decoded; its rows are zero.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moco_tf import encoders, storage
from moco_tf.backbones.precision import without_tf32
from moco_tf.data.labelled import evaluation_dataset
from moco_tf.data.sources import Source, Stream, from_bytes
from moco_tf.evaluation.embedding_parts import Parts, read_facts, read_file
from moco_tf.log import log
from moco_tf.pretraining import data_record
from moco_tf.probes import features


class Embeddings(NamedTuple):
    """Content of a file: the images that can be decoded.

    Attributes:
        names: paths of N images.
        vectors: float32 NxC of unit length: features, or embeddings in a file without features.
        encoder: digest of the encoder; None in the file of a client.
    """

    names: np.ndarray
    vectors: np.ndarray
    encoder: str | None


def read(path: str) -> Embeddings:
    """Reads a file of embeddings.

    Raises:
        ValueError: for another file.
    """
    arrays, facts = read_file(path)
    missing = {"name", "ok"} - arrays.keys()
    vectors = arrays.get("feature", arrays.get("embedding"))
    if missing or vectors is None:
        raise ValueError(
            "A file of embeddings must have name, ok, and feature or embedding. Received: "
            f"{path!r} with {', '.join(arrays) or 'nothing'}."
        )
    ok = arrays["ok"]
    return Embeddings(arrays["name"][ok], features.unit(vectors[ok]), facts.get("encoder"))


def of_files(loaded: encoders.Loaded, paths: list[str]) -> Embeddings:
    """Embeddings of a few image files, in memory.

    Args:
        loaded: encoder.
        paths: local or gs:// files.

    Raises:
        ValueError: for a file that does not exist or cannot be decoded.
    """
    missing = [path for path in paths if not tf.io.gfile.exists(storage.utf8(path))]
    if missing:
        raise ValueError(f"Queries must be image files. Received: {missing[0]!r}: no such file.")
    crop = encoders.preprocessing(loaded)
    contents = [storage.read_bytes(path) for path in paths]
    source = dataclasses.replace(from_bytes(contents, paths), decode=crop.decode)
    (rows,) = _rows(loaded, source, crop, batch=len(paths), title=None)
    bad = [path for path, ok in zip(paths, rows["ok"], strict=True) if not ok]
    if bad:
        raise ValueError(f"Queries must be images. Received: {bad[0]!r}, which cannot be decoded.")
    return Embeddings(np.array(paths), features.unit(rows["feature"]), loaded.digest)


def write(
    loaded: encoders.Loaded,
    source: Source | Stream,
    output: str,
    *,
    batch: int = 64,
    title: str | None = None,
):
    """Writes the embeddings of all images of a source, or what is missing of them.

    A second call goes on where one was stopped, by the parts in the folder OUTPUT.parts; if OUTPUT
    is of the same encoder and images, there is nothing to do.

    Args:
        loaded: encoder.
        source: images with random access.
        output: file to write, see `Parts`.
        batch: images at a time.
        title: title of the progress bar; None shows none.

    Raises:
        ValueError: for a stream, or an output of another form.

    Example:
        write(encoders.load("runs/photos"), open_source("folder:photos"), "photos.npz")
    """
    if isinstance(source, Stream):
        raise ValueError(
            "Images to embed must have random access, as folder:DIR. Received: shards."
        )
    crop = encoders.preprocessing(loaded)
    facts = {
        "encoder": loaded.digest,
        "crop": crop.to_dict(),
        "images": data_record.identity(source),
    }
    if read_facts(output) == facts:
        log.info("%s has these embeddings already.", output)
        return
    names = [str(name) for name in source.files] or [
        name.decode() for name in source.keys().map(source.name).as_numpy_iterator()
    ]
    parts = Parts(output, facts)
    done = parts.num_done(names)
    if done:
        log.info("%d of %d images are embedded already.", done, len(names))
    bad = []
    if done < len(names):
        rest = source.subset(np.arange(done, len(names))) if done else source
        try:
            for rows in _rows(loaded, rest, crop, batch, title):
                end = done + len(rows["ok"])
                parts.add({"name": np.array(names[done:end]), **rows})
                bad += [names[done + row] for row in np.flatnonzero(~rows["ok"])]
                done = end
        finally:  # after an error, keep what is done
            parts.flush()
    parts.join()
    if bad:
        log.warning(
            "%d of %d images cannot be decoded, such as %s: their rows are zero, their `ok` false.",
            len(bad),
            len(names),
            bad[0],
        )


def _rows(loaded, source, crop, batch, title):
    """Yields dicts of feature, embedding and ok of the images of a source, in order."""
    network = loaded.encoder.features_and_embeddings()
    predict_all = features.forward(network, crop.recipe, tf.distribute.get_strategy())

    def dataset(batch_size, rows):
        sizes = {"image_size_px": crop.image_size_px, "resize_px": crop.resize_px}
        return evaluation_dataset(source, batch=batch_size, rows=rows, **sizes)

    count = source.num_examples
    with without_tf32():
        for _, outputs in predict_all(dataset, count, min(batch, count), title):
            ok = outputs["ok"]
            rows = {"feature": outputs["x0"], "embedding": features.unit(outputs["x1"])}
            rows = {n: np.where(ok[:, None], x, 0).astype(np.float32) for n, x in rows.items()}
            yield {**rows, "ok": ok}
