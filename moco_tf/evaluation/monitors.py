"""The kNN monitor of a training run."""

from moco_tf import datasets
from moco_tf.callbacks import Knn
from moco_tf.evaluation import features, knn
from moco_tf.log import log


def make_knn(config, model, recipe, strategy, plan):
    """The `Knn` callback of a config; None, and said, if it is off or nothing has labels."""
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
            raise ValueError(
                f"The kNN monitor needs labelled images with random access. Received: {address!r}. "
                "Set config.monitor.source."
            )
    run = features.extractor(model.encoder_q, monitor.features, strategy)
    size = data.image_size_px

    def evaluate():
        bank_features, query_features = (
            features.extract(
                run,
                source,
                recipe,
                strategy,
                image_size_px=size,
                resize_px=monitor.resize_px or round(size * 8 / 7),
            )
            for source in (bank, queries)
        )
        return knn.accuracy(
            bank_features,
            bank.labels,
            query_features,
            queries.labels,
            neighbours=monitor.neighbours,
            temperature=monitor.temperature,
        )

    return Knn(evaluate, plan)
