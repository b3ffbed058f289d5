"""Files of embeddings: written for any number of images in constant memory, and read.

An .npz file of these arrays, which the client of a server writes, too:

    name: N texts, paths of the images.
    embedding: float32 NxD of unit length, what the pretext task compares.
    feature: float32 NxC, the backbone's. Searches use it: it tells classes apart better than the
        embedding, which the pretext task makes blind to what augmentation changes (MoCo v2,
        SimCLR section 4.2).
    ok: bool N, false where an image cannot be decoded; its rows are zero.
"""

import dataclasses
import json
import os
import shutil
import time
import zipfile
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moco_tf import encoders, storage
from moco_tf.backbones.precision import without_tf32
from moco_tf.data.labelled import evaluation_dataset
from moco_tf.data.sources import Source, Stream, from_bytes
from moco_tf.log import log
from moco_tf.pretraining import data_record
from moco_tf.probes import features

FACTS = "facts.json"
NOTE_SECONDS = 10  # between two notes of how many rows are whole


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
    try:
        with np.load(path) as file:
            key = "feature" if "feature" in file else "embedding"
            names, vectors, ok = file["name"], file[key], file["ok"]
            facts = json.loads(str(file["facts"])) if "facts" in file else {}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            "Embeddings must be an .npz file that `embed` or `client` has written. Received: "
            f"{path!r} ({error})."
        ) from error
    return Embeddings(names[ok], features.unit(vectors[ok]), facts.get("encoder"))


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

    Rows are appended to files in the folder OUTPUT.part. A second call goes on where one was
    stopped; if OUTPUT is of the same encoder and images, there is nothing to do.

    Args:
        loaded: encoder.
        source: images with random access.
        output: local .npz file.
        batch: images at a time.
        title: title of the progress bar; None shows none.

    Raises:
        ValueError: for a stream, or an output that is no local .npz file.

    Example:
        write(encoders.load("runs/photos"), open_source("folder:photos"), "photos.npz")
    """
    if "://" in output or not output.endswith(".npz"):
        raise ValueError(f"`--output` must be a local file, x.npz. Received: {output!r}.")
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
    if os.path.exists(output) and _facts_in(output) == facts:
        log.info("%s has these embeddings already.", output)
        return
    folder = f"{output}.part"
    widths = {"embedding": loaded.encoder.output_shape[-1]}
    widths["feature"] = loaded.encoder.backbone.output_shape[-1]
    parts = _Parts(folder, source.num_examples, widths, facts)
    if parts.done:
        log.info("%d of %d images are embedded already.", parts.done, source.num_examples)
    if parts.done < source.num_examples:
        rest = source.subset(np.arange(parts.done, source.num_examples)) if parts.done else source
        for rows in _rows(loaded, rest, crop, batch, title):
            parts.append(rows)
    names = [str(name) for name in source.files] or [
        name.decode() for name in source.keys().map(source.name).as_numpy_iterator()
    ]
    parts.join(output, names)
    shutil.rmtree(folder)


def _facts_in(path):
    try:
        with np.load(path) as file:
            return json.loads(str(file["facts"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


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


class _Parts:
    """Files NAME.npy of arrays that grow, in a folder that notes how many of their rows are whole.

    Args:
        folder: local folder; one of other facts is emptied.
        total: number of rows in the end.
        widths: numbers of columns by the names of float32 arrays; `ok` is a bool column.
        facts: what the rows depend on, JSON-ready.
    """

    def __init__(self, folder, total, widths, facts):
        self.folder, self.facts, self.done = folder, facts, 0
        note = self._note()
        if note.get("facts") == facts:
            self.done = note["done"]
        elif os.path.exists(folder):
            shutil.rmtree(folder)
        os.makedirs(folder, exist_ok=True)
        shapes = {name: ("<f4", (total, width)) for name, width in widths.items()}
        self.files = {}
        for name, (dtype, shape) in {**shapes, "ok": ("|b1", (total,))}.items():
            path = os.path.join(folder, f"{name}.npy")
            mode = "r+b" if os.path.exists(path) else "w+b"
            file = self.files[name] = open(path, mode)  # noqa: SIM115 closed by `join`
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape[1:]))
            file.truncate(file.tell() + self.done * row_bytes)
            file.seek(0, os.SEEK_END)
        self.noted_at = time.monotonic()

    def _note(self):
        try:
            with open(os.path.join(self.folder, FACTS)) as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def append(self, rows):
        for name, file in self.files.items():
            file.write(np.ascontiguousarray(rows[name]).tobytes())
        self.done += len(rows["ok"])
        if time.monotonic() - self.noted_at > NOTE_SECONDS:
            self.flush()

    def flush(self):
        for file in self.files.values():
            file.flush()
        note = json.dumps({"done": self.done, "facts": self.facts})
        storage.write_text(os.path.join(self.folder, FACTS), note)
        self.noted_at = time.monotonic()

    def join(self, output, names):
        """Writes the arrays, names and facts into one .npz file."""
        self.flush()
        for file in self.files.values():
            file.close()
        others = {"name": np.array(names), "facts": np.array(json.dumps(self.facts))}
        for name, array in others.items():
            np.save(os.path.join(self.folder, f"{name}.npy"), array)

        def write_zip(path):
            with zipfile.ZipFile(path, "w") as archive:
                for name in (*self.files, *others):
                    archive.write(os.path.join(self.folder, f"{name}.npy"), f"{name}.npy")

        storage.replace(output, write_zip)
