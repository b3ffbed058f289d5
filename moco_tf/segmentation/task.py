"""Segmentation task: trains an FCN on a pre-trained backbone and tests it on whole images."""

import os

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute, encoders, storage
from moco_tf.backbones.resnet import require_resnet
from moco_tf.data.labelled import fill_of, normalized
from moco_tf.evaluation.task import Task
from moco_tf.optim import SGD
from moco_tf.segmentation import config as configs
from moco_tf.segmentation import examination, networks, pipeline, report, scoring, sources
from moco_tf.segmentation.segmenter import Segmenter, make_predict
from moco_tf.segmentation.serving import export_segmentation
from moco_tf.training import fit
from moco_tf.training import plan as plans
from moco_tf.training.config import Length


class SegmentationTask(Task):
    """Trains or resumes a segmentation network; saves segmenter.keras and predictions."""

    name = "segmentation"
    Config = configs.Segmentation
    TITLES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}  # noqa: RUF012
    trains = True

    @classmethod
    def check(cls, config):
        configs.check(config)

    def prepare(self):
        config = self.config
        data = config.data
        self.recipe = encoders.recipe_of(self.loaded, data.recipe)
        self.train_set = sources.open_pairs(data.train, data.num_classes, data.ignored)
        self.test_set = sources.open_pairs(data.test, data.num_classes, data.ignored)
        if self.train_set.classes != self.test_set.classes:
            raise ValueError(
                "Training and test images must have the same classes. Received: "
                f"{len(self.train_set.classes)} and {len(self.test_set.classes)}."
            )
        self.layout = plans.make_layout(config, self.strategy)
        # A batch has an image several times if there are fewer images than rows.
        num_examples = max(self.train_set.num_examples, config.batch_size)
        self.plan = plans.make_plan(config, num_examples, Length(steps=config.test_every_steps))
        make, dilation, multiple = networks.NETWORKS[config.head]
        if data.crop_px % multiple:
            raise ValueError(
                f"`--config.data.crop_px` must be a multiple of {multiple} for head={config.head}. "
                f"Received: {data.crop_px}."
            )
        quiet = not distribute.is_chief(self.strategy)
        examination.check(self.train_set, data.train, quiet=quiet)
        sizes = examination.check(self.test_set, data.test, quiet=quiet)
        with self.strategy.scope():
            keras.utils.set_random_seed(config.seed)
            backbone = require_resnet(self.loaded.encoder.backbone).rebuild(
                config.random_init, last_dilation=dilation, synchronized_bn=True, dtype="float32"
            )
            self.model = self._compiled(make(backbone, len(self.train_set.classes)))
        self.tester = Tester(
            config, self.model, self.recipe, self.strategy, self.test_set, sizes, multiple
        )

    def _compiled(self, network):
        config, recipe = self.config, self.recipe
        model = Segmenter(network, lambda x: normalized(recipe, x))
        model.compile(
            SGD(
                plans.make_schedule(config, 1),
                momentum=config.optimizer.momentum,
                weight_decay=config.optimizer.weight_decay,
            )
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def train(self, stop):
        fit.fit(
            self.model,
            os.path.join(self.workdir, "segmenter.keras"),
            self.config,
            self.plan,
            self._dataset,
            self.model.step,
            self._scores,
            stop,
            names=Segmenter.NAMES,
        )

    def _dataset(self, host, start_step):
        data = self.config.data
        return pipeline.segmentation_dataset(
            self.train_set,
            self.layout,
            fill=fill_of(self.recipe),
            crop_px=data.crop_px,
            scale=(data.scale_min, data.scale_max),
            host=host,
            seed=self.config.seed,
            start_step=start_step,
        )

    def _scores(self):
        """Test mIoU, for the curve."""
        iou = scoring.class_iou(self.tester.confusions(None).sum(axis=0))
        return {"test_miou": float(np.nanmean(iou))}

    @property
    def _predictions(self):
        """Folder of the predicted label maps."""
        return os.path.join(self.workdir, "predictions")

    def test(self):
        chief = distribute.is_chief(self.strategy)
        config, recipe, test_set = self.config, self.recipe, self.test_set
        self.matrices = self.tester.confusions(
            "test" if chief else None, self._predictions if chief else None
        )
        return {
            "metrics": scoring.measure(self.matrices, config.seed),
            "protocol": _protocol(config, self.plan),
            "details": _details(self.matrices, test_set.classes),
            "data": {
                "train": config.data.train,
                "test": config.data.test,
                "train_images": self.train_set.num_examples,
                "test_images": test_set.num_examples,
                "classes": len(test_set.classes),
                "class_names": list(test_set.classes),
            },
            "normalization": {"mean": list(recipe.mean), "std": list(recipe.std)},
        }

    def report(self, record):
        report.write(self.workdir, record, self.test_set, self.matrices, self._predictions)

    @classmethod
    def export(cls, workdir, output):
        return export_segmentation(workdir, output)


class Tester:
    """Predicts whole test images and compares them with their label maps.

    Args:
        config: `Segmentation`.
        model: `Segmenter`.
        recipe: `Recipe` whose normalization to use.
        strategy: strategy of the model.
        pairs: test images and label maps.
        sizes: heights and widths from `examination.check`, int Nx2.
        multiple: image sizes of the network are multiples of it, px.
    """

    def __init__(self, config, model, recipe, strategy, pairs, sizes, multiple):
        self.pairs = pairs
        self.sizes = sizes
        self.fill = fill_of(recipe)
        self.batch_size = config.test_batch_size
        self.padded = tuple(-(-sizes.max(axis=0) // multiple) * multiple)
        predict = make_predict(
            model.network,
            lambda x: normalized(recipe, x),
            config.test_scales,
            config.test_flip,
            multiple,
        )
        self._predict_all = distribute.make_predict_all(
            strategy, lambda images: {"label": predict(images)}
        )

    def confusions(self, title, folder=None):
        """Confusion matrix of each image, int64 NxKxK, the same on every process.

        Args:
            title: title of the progress bar; None shows none.
            folder: folder for the predicted label maps as PNG; None saves none.
        """
        n, k = self.pairs.num_examples, len(self.pairs.classes)
        matrices = np.zeros((n, k, k), np.int64)
        if folder:
            tf.io.gfile.makedirs(folder)
        for first, outputs in self._predict_all(self._dataset, n, self.batch_size, title):
            for i, predicted in enumerate(outputs["label"], first):
                height, width = self.sizes[i]
                predicted = predicted[:height, :width]
                label = self.pairs.label(tf.constant(i, tf.int64)).numpy()
                matrices[i] = scoring.confusion(label, predicted, k)
                if folder:
                    path = report.prediction_path(folder, self.pairs, i)
                    png = tf.io.encode_png(predicted[..., None].astype(np.uint8)).numpy()
                    storage.write_bytes(path, png)
        return matrices

    def _dataset(self, batch_size, rows):
        return pipeline.test_dataset(self.pairs, batch_size, rows, self.padded, self.fill)


def _protocol(config, plan):
    text = f"{config.head}, end to end, {plan.stop} steps of {config.batch_size} crops of "
    text += f"{config.data.crop_px} px"
    if plan.stop < plan.total:
        text += f", stopped early of {plan.total}"
    text += f", lr {config.optimizer.learning_rate:g}; whole images"
    if config.test_scales != (1.0,) or config.test_flip:
        text += f" at scales {', '.join(f'{s:g}' for s in config.test_scales)}"
        text += " and mirrored" if config.test_flip else ""
    return text


def _details(matrices, classes):
    iou = scoring.class_iou(matrices.sum(axis=0))
    majority, best = scoring.majority(matrices)
    return {
        "class_iou": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, iou, strict=True)
        },
        "confusion": matrices.sum(axis=0).tolist(),
        "majority": {"class": classes[best], "miou": majority},
    }
