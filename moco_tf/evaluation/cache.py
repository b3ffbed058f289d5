"""Cache of features on disk: each checkpoint processes each set of images once.

Features are extracted into the cache, file by file, and an extraction that was stopped goes on.
"""

import hashlib
import json
import os
from collections.abc import Callable

import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.data.sources import Source, Stream
from moco_tf.probes import features
from moco_tf.probes.feature_files import FeatureFiles
from moco_tf.probes.features import Outputs


class Cache:
    """A folder of features; a hash of all that features depend on is their file name.

    Args:
        folder: local or gs:// folder; local files are read as memory maps.
        strategy: strategy whose processes share the folder; each writes files of its own.
    """

    def __init__(self, folder: str, strategy: tf.distribute.Strategy):
        self.folder, self.strategy = folder, strategy

    def outputs(
        self,
        facts: dict,
        source: Source | Stream,
        batch: int,
        extract: Callable[[FeatureFiles], None],
    ) -> Outputs:
        """The outputs for a source, on disk; those that are missing are extracted.

        Args:
            facts: JSON-ready dict of all that outputs depend on besides the source's images.
            source: images.
            batch: rows that a process computes at a time.
            extract: function that writes the missing files.
        """
        text = json.dumps([facts, _identity(source)], sort_keys=True)
        prefix = os.path.join(self.folder, hashlib.sha256(text.encode()).hexdigest()[:24])
        tf.io.gfile.makedirs(self.folder)
        files = FeatureFiles(prefix, source.num_examples, batch)
        is_complete = not files.missing()
        if min(distribute.mean_over_workers(self.strategy, [is_complete])) < 1:
            extract(files)
            if distribute.is_chief(self.strategy):
                storage.write_text(f"{prefix}.json", json.dumps(facts))
        return features.read_from(files)


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
        sha.update(storage.utf8(path))
        if "://" not in path:  # for remote files the calls would take long
            stat = os.stat(path)
            sha.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return {"images": source.num_examples, "digest": sha.hexdigest()}
