"""Cache of features on disk: each checkpoint processes each set of images once."""

import hashlib
import json
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.data.sources import Source, Stream
from moco_tf.probes.features import Outputs


class Cache:
    """A folder of features; a hash of all that features depend on is their file name.

    Args:
        folder: local or gs:// folder; local files are read as memory maps.
        strategy: strategy whose processes share the folder; the chief writes.
    """

    def __init__(self, folder: str, strategy: tf.distribute.Strategy):
        self.folder, self.strategy = folder, strategy

    def outputs(
        self, facts: dict, source: Source | Stream, extract: Callable[[], Outputs]
    ) -> Outputs:
        """Reads the outputs for a source, or extracts and saves them.

        Args:
            facts: JSON-ready dict of all that outputs depend on besides the source's images.
            source: images.
            extract: function that computes the outputs.
        """
        text = json.dumps([facts, _identity(source)], sort_keys=True)
        prefix = os.path.join(self.folder, hashlib.sha256(text.encode()).hexdigest()[:24])
        # The .json is written last: features without it are incomplete.
        is_complete = tf.io.gfile.exists(f"{prefix}.json")
        if min(distribute.mean_over_workers(self.strategy, [is_complete])) == 1:
            return self._read(prefix)
        outputs = extract()
        if distribute.is_chief(self.strategy):
            self._write(prefix, facts, outputs)
        return outputs

    def _read(self, prefix):
        with tf.io.gfile.GFile(f"{prefix}.json") as file:
            count = json.load(file)["outputs"]
        *x, labels, ok = [
            self._array(f"{prefix}-{name}.npy") for name in (*range(count), "labels", "ok")
        ]
        return Outputs(x, labels, ok)

    def _array(self, path):
        if "://" not in path:
            return np.load(path, mmap_mode="r")
        with tf.io.gfile.GFile(path, "rb") as file:
            return np.load(file)

    def _write(self, prefix, facts, outputs):
        tf.io.gfile.makedirs(self.folder)
        arrays = {**dict(enumerate(outputs.x)), "labels": outputs.labels, "ok": outputs.ok}
        for name, array in arrays.items():
            path = f"{prefix}-{name}.npy"  # another process may be reading it, so rename
            with tf.io.gfile.GFile(f"{path}.{os.getpid()}.tmp", "wb") as file:
                np.save(file, array)
            tf.io.gfile.rename(f"{path}.{os.getpid()}.tmp", path, overwrite=True)
        storage.write_text(f"{prefix}.json", json.dumps({"outputs": len(outputs.x), **facts}))


def _identity(source):
    """Digest of a source's labels, names and files, which may change under one address."""
    sha = hashlib.sha256()
    if isinstance(source, Stream):
        files = [path for path, _, _ in source.shards]
    else:
        files = source.files
        sha.update(b"" if source.labels is None else source.labels.tobytes())
        for names in source.keys().batch(4096).map(source.name).as_numpy_iterator():
            sha.update(b"\0".join(names))
    for path in files:
        sha.update(path.encode())
        if "://" not in path:  # for remote files the calls would take long
            stat = os.stat(path)
            sha.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return {"images": source.num_examples, "digest": sha.hexdigest()}
