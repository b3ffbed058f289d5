"""Task neighbours: what an encoder finds alike in images without labels, as a page.

Alignment and uniformity of the embeddings are those of arXiv:2005.10242, section 4.
"""

import os

import numpy as np
import tensorflow as tf

from moco_tf import encoders, storage
from moco_tf.data import image_ops, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.labelled import center_crops
from moco_tf.data.sources import Stream
from moco_tf.data.two_views import two_view_dataset
from moco_tf.evaluation import results
from moco_tf.evaluation.config import Neighbours
from moco_tf.evaluation.task import Task
from moco_tf.log import log
from moco_tf.probes import features, knn
from moco_tf.probes.quality import alignment, uniformity
from moco_tf.reports import pages

MEANING = (
    "Alignment is the mean squared distance of the embeddings of two augmented views of an image: "
    "0 if augmentation changes nothing. Uniformity is the logarithm of the mean of "
    "exp(-2 d²) over the distances d of different images: 0 if all embeddings are equal, lower "
    "the more evenly they fill the unit sphere. Both are best low, and only together say anything: "
    "a collapsed encoder has alignment 0 and uniformity 0. Compare with the same encoder untrained "
    "(--config.random_init=true)."
)


class NeighboursTask(Task):
    """Shows nearest neighbours of some images; measures alignment and uniformity."""

    name = "neighbours"
    Config = Neighbours
    TITLES = {"alignment": "alignment", "uniformity": "uniformity"}  # noqa: RUF012
    needs_float32 = True

    def load(self, checkpoint):
        return encoders.load(checkpoint, self.config.random_init, self.config.seed)

    def prepare(self):
        data, run = self.config.data, self.loaded.run
        if not (data.source or run):
            raise ValueError(
                "`--config.data.source` must be given, because the checkpoint is a file without "
                "its run. Received: none. Example: --config.data.source=folder:photos"
            )
        self.address = data.source or run.data.source
        data_dir = data.data_dir or (run.data.data_dir if run else None)
        decode = run.data.decode if run else image_ops.decode
        source = sources.open_source(self.address, data_dir, data.num_examples, decode=decode)
        if source.num_examples < 2:
            raise ValueError(
                f"`--config.data.source` must have two images or more. Received: {self.address!r}."
            )
        if not isinstance(source, Stream) and source.num_examples > data.gallery:
            chosen = np.arange(data.gallery) * source.num_examples // data.gallery
            log.info("Searching %d of %d images.", data.gallery, source.num_examples)
            source = source.subset(chosen)
        self.source = source
        self.crop = encoders.preprocessing(
            self.loaded, data.image_size_px, data.resize_px, data.recipe
        )

    def test(self):
        crop = {"image_size_px": self.crop.image_size_px, "resize_px": self.crop.resize_px}
        predict_all = features.forward(
            self.loaded.encoder.backbone, self.crop.recipe, self.strategy
        )
        outputs = features.extract(
            predict_all, self.source, **crop, batch=self.config.rows, title="images"
        )
        self.numbers = np.flatnonzero(outputs.ok)
        if len(self.numbers) < len(outputs.ok):
            log.warning("%d images cannot be decoded.", len(outputs.ok) - len(self.numbers))
        bank = outputs.x[0][self.numbers]
        count = min(self.config.queries, len(bank))
        queries = np.arange(count) * len(bank) // count
        cosine, self.nearest = knn.nearest(
            bank, bank[queries], self.config.shown + 1, block=len(queries)
        )
        x, y = self._views()
        log.info("Mean cosine of a query and its nearest neighbour: %.3f", cosine[:, 1:2].mean())
        return {
            "metrics": {
                "alignment": {"value": alignment(x, y), "is_share": False},
                "uniformity": {
                    "value": (uniformity(x) + uniformity(y)) / 2,
                    "is_share": False,
                },
            },
            "protocol": f"embeddings of two views of {len(x)} images, after arXiv:2005.10242",
            "preprocessing": self.crop.to_dict(),
            "data": {"test": self.address, "test_images": len(bank)},
        }

    def _views(self):
        """Embeddings of unit length of two views of each of some images: two NxD arrays."""
        count = min(self.config.pairs, self.source.num_examples)
        batch = min(self.config.rows, count)
        views = two_view_dataset(
            self.source,
            self.crop.recipe,
            BatchLayout(batch),
            image_size_px=self.crop.image_size_px,
            seed=self.config.seed,
            shuffle=False,
            jit_compile=False,
        )

        @tf.function(autograph=False)
        def embed(images):
            return self.loaded.encoder(images, training=False)

        rows = [[], []]
        for example in views.take(count // batch):
            for view, name in zip(rows, ("x_q", "x_k"), strict=True):
                view.append(embed(example[name]).numpy())
        return [features.unit(np.concatenate(view)) for view in rows]

    def report(self, record):
        shown = np.unique(self.nearest)
        crops = center_crops(
            self.source, self.numbers[shown], self.crop.resize_px, self.crop.image_size_px
        )
        grid = [crops[np.searchsorted(shown, row)] for row in self.nearest]
        metrics = record["metrics"].items()
        rows = [(results.title_of(n, record), results.percent(m)) for n, m in metrics]
        parts = [
            "<h2>Nearest neighbours</h2><p>First column: the query; then the most similar of "
            f"{len(self.numbers)} images by the backbone's features, nearest first.</p>",
            pages.grid(grid),
            "<h2>Alignment and uniformity</h2>",
            pages.table(("", ""), rows),
            f"<p>{pages.escape(MEANING)}</p>",
        ]
        page = pages.page(f"neighbours: {self.workdir}", results.summary(record), parts)
        storage.write_text(os.path.join(self.workdir, "report.html"), page)
