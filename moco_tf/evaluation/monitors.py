"""The monitor of a training run."""

import numpy as np

from moco_tf import datasets
from moco_tf.callbacks import Scores
from moco_tf.evaluation import features, knn
from moco_tf.log import log


def make_scores(config, model, recipe, strategy, plan):
    """The `Scores` callback of a config; None, and said, if it is off or nothing has labels."""
    monitor, data = config.monitor, config.data
    if not plan.monitor_every:
        log.info("The kNN monitor is off.")
        return None
    if monitor.source == "auto":
        addresses = datasets.labelled_splits(data.source, data.data_dir or None)
    else:
        addresses = monitor.source.split(",")
    if addresses is None:
        log.info(
            "The kNN monitor is off: %s has no labelled splits. monitor.source=BANK,QUERIES names "
            "two.",
            data.source,
        )
        return None
    if len(addresses) != 2:
        raise ValueError(
            "`config.monitor.source` must be auto, off or BANK,QUERIES, two addresses with a comma "
            f"between. Received: {monitor.source!r}."
        )
    bank, queries = (datasets.open_source(a, data.data_dir or None) for a in addresses)
    for address, source in zip(addresses, (bank, queries)):
        if getattr(source, "labels", None) is None:
            rule = "The kNN monitor needs labelled images with random access"
            if monitor.source != "auto":
                raise ValueError(f"{rule}. Received: {address!r}. Set config.monitor.source.")
            log.info("The kNN monitor is off. %s, which %s is not.", rule, address)
            return None
    query_labels = _as_in_bank(bank, queries)
    run = features.extractor(model.encoder_q, monitor.features, strategy)
    size = data.image_size_px

    resize = monitor.resize_px or round(size * 8 / 7)
    said = set()

    def labelled(address, source, labels):
        """Features and labels of the images that can be decoded."""
        x, ok = features.extract(
            run, source, recipe, strategy, image_size_px=size, resize_px=resize
        )
        if not ok.all() and address not in said:
            said.add(address)
            log.warning(
                "kNN leaves out %d images of %s that cannot be decoded.", (~ok).sum(), address
            )
        return x[ok], labels[ok]

    def evaluate():
        accuracy = knn.accuracy(
            *labelled(addresses[0], bank, bank.labels),
            *labelled(addresses[1], queries, query_labels),
            neighbours=monitor.neighbours,
            temperature=monitor.temperature,
        )
        return {"knn": accuracy}

    return Scores(evaluate, plan)


def _as_in_bank(bank, queries):
    """Labels of the queries, in the numbering of the bank's classes where these have names."""
    if not (bank.classes and queries.classes):
        return queries.labels
    unknown = sorted(set(queries.classes) - set(bank.classes))
    if unknown:
        raise ValueError(
            "The kNN monitor's queries must have classes of its bank. Received besides: "
            f"{', '.join(unknown[:5])}. Set config.monitor.source, or switch it off (off)."
        )
    return np.array([bank.classes.index(name) for name in queries.classes])[queries.labels]
