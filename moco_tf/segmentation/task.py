"""A segmentation, from its config to results.json and report.html."""

import os
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf import distribute, encoders, schema, storage
from moco_tf.backbones.resnet import require_resnet
from moco_tf.data.labelled import fill_of, normalized
from moco_tf.evaluation import results
from moco_tf.optim import SGD
from moco_tf.segmentation import networks, pipeline, report, scoring, sources
from moco_tf.segmentation.segmenter import Segmenter, make_predict
from moco_tf.training import checkpoint, fit
from moco_tf.training import plan as plan_lib
from moco_tf.training.config import Length


def segment(config, encoder, workdir, strategy, stop=lambda: False):
    """Trains or resumes a segmentation on a pre-trained backbone, and tests it.

    Args:
        config: checked `Segmentation`.
        encoder: as of `encoders.load`.
        workdir: folder of the run, local or gs://.
        strategy: of `strategies.make_strategy`.
        stop: function that says whether to stop early.

    Returns:
        What results.json holds.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
        ValueError: for what `encoders` and `sources` refuse, or a batch that does not divide.
    """
    began = time.time()
    with strategy.scope():
        loaded = encoders.load(encoder)
    recipe = encoders.recipe_of(loaded, config.data.recipe)
    pairs = [_open(config, address) for address in (config.data.train, config.data.test)]
    if pairs[0].classes != pairs[1].classes:
        raise ValueError(
            "Training and test images must have the same classes. Received: "
            f"{len(pairs[0].classes)} and {len(pairs[1].classes)}."
        )
    layout, plan = plan_lib.make_layout(config, strategy), _plan(config, pairs[0])
    _, _, multiple = networks.NETWORKS[config.head]
    if config.data.crop_px % multiple:
        raise ValueError(
            f"`--config.data.crop_px` must be a multiple of {multiple} for head={config.head}. "
            f"Received: {config.data.crop_px}."
        )
    chief = distribute.is_chief(strategy)
    addresses = (config.data.train, config.data.test)
    sizes = [sources.check(p, a, quiet=not chief) for p, a in zip(pairs, addresses)]
    with strategy.scope():
        model = _model(config, loaded.encoder, recipe, len(pairs[0].classes))
    made_by = {"task": "segmentation", "encoder": loaded.digest, **schema.to_dict(config)}
    checkpoint.claim_workdir(made_by, workdir, strategy)
    tester = Tester(config, model, recipe, strategy, pairs[1], sizes[1], multiple)
    _train(config, model, recipe, workdir, pairs[0], layout, plan, tester, stop)
    folder = os.path.join(workdir, "predictions")
    matrices = tester.confusions("test" if chief else None, folder if chief else None)
    found = results.record(
        *("segmentation", config, loaded, began),
        metrics=scoring.measure(matrices, config.seed),
        protocol=_protocol(config, plan),
        details=_details(matrices, pairs[1].classes),
        data={
            "train": config.data.train,
            "test": config.data.test,
            "train_images": pairs[0].num_examples,
            "test_images": pairs[1].num_examples,
            "classes": len(pairs[1].classes),
            "class_names": list(pairs[1].classes),
        },
        normalization={"mean": list(recipe.mean), "std": list(recipe.std)},
    )
    if chief:
        results.write(workdir, found)
        report.write(workdir, found, pairs[1], matrices, folder)
    return found


def _open(config, address):
    return sources.open_pairs(address, config.data.num_classes, config.data.ignored)


def _plan(config, pairs):
    # Fewer images than a batch are seen several times in it.
    num_examples = max(pairs.num_examples, config.batch_size)
    return plan_lib.make_plan(config, num_examples, Length(steps=config.test_every_steps))


def _model(config, encoder, recipe, num_classes):
    make, dilation, _ = networks.NETWORKS[config.head]
    backbone = require_resnet(encoder.backbone)
    keras.utils.set_random_seed(config.seed)
    backbone = backbone.rebuild(
        config.random_init, last_dilation=dilation, synchronized_bn=True, dtype="float32"
    )
    model = Segmenter(make(backbone, num_classes), lambda x: normalized(recipe, x))
    model.compile(
        SGD(
            plan_lib.make_schedule(config, 1),
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        )
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _train(config, model, recipe, workdir, pairs, layout, plan, tester, stop):
    """Trains from the newest checkpoint on."""

    def dataset(host, start_step):
        return pipeline.segmentation_dataset(
            pairs,
            layout,
            fill=fill_of(recipe),
            crop_px=config.data.crop_px,
            scale=(config.data.scale_min, config.data.scale_max),
            host=host,
            seed=config.seed,
            start_step=start_step,
        )

    def test():
        iou = scoring.class_iou(tester.confusions(None).sum(axis=0))
        return {"test_miou": float(np.nanmean(iou))}

    path = os.path.join(workdir, "segmenter.keras")
    fit.fit(*(model, path, config, plan, dataset, model.step, test, stop), names=Segmenter.NAMES)


class Tester:
    """Predicts whole test images on a strategy, and compares.

    Args:
        config: `Segmentation`.
        model: `Segmenter`.
        recipe: whose normalisation.
        strategy: of the model.
        pairs: test images.
        sizes: int Nx2, of `sources.check`.
        multiple: sizes that the network takes are multiples of it.
    """

    def __init__(self, config, model, recipe, strategy, pairs, sizes, multiple):
        self.pairs, self.sizes, self.strategy, self.fill = pairs, sizes, strategy, fill_of(recipe)
        self.batch = config.test_batch_size
        self.padded = tuple(-(-sizes.max(axis=0) // multiple) * multiple)
        predict = make_predict(
            *(model.network, lambda x: normalized(recipe, x)),
            *(config.test_scales, config.test_flip, multiple),
        )

        def replica(images):
            return distribute.all_gather(predict(images))

        @tf.function(autograph=False)
        def run(iterator):
            found = strategy.run(replica, (next(iterator),))
            return strategy.experimental_local_results(found)[0]

        self.run = run

    def confusions(self, title, folder=None):
        """One confusion matrix an image, int64 NxKxK, the same on every process.

        Args:
            title: of a progress bar; None for none.
            folder: where to save the predictions as PNG, class numbers; None does not.
        """

        def dataset(context):
            rows = self.batch // context.num_input_pipelines
            first = context.input_pipeline_id * rows
            data = pipeline.test_dataset(
                self.pairs, self.batch, slice(first, first + rows), self.padded, self.fill
            )
            per_replica = self.batch // self.strategy.num_replicas_in_sync
            if rows > per_replica:
                data = data.unbatch().batch(per_replica, drop_remainder=True)
            return data.repeat()

        iterator = iter(self.strategy.distribute_datasets_from_function(dataset))
        n, k = self.pairs.num_examples, len(self.pairs.classes)
        matrices = np.zeros((n, k, k), np.int64)
        if folder:
            tf.io.gfile.makedirs(folder)
        for start in tqdm(range(0, n, self.batch), title, unit="batch", disable=title is None):
            predicted = self.run(iterator).numpy()
            for i in range(start, min(start + self.batch, n)):
                height, width = self.sizes[i]
                found = predicted[i - start, :height, :width]
                label = self.pairs.label(tf.constant(i, tf.int64)).numpy()
                matrices[i] = scoring.confusion(label, found, k)
                if folder:
                    path = report.prediction_path(folder, self.pairs, i)
                    png = tf.io.encode_png(found[..., None].astype(np.uint8)).numpy()
                    storage.write_bytes(path, png)
        return matrices


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
            name: None if np.isnan(value) else float(value) for name, value in zip(classes, iou)
        },
        "confusion": matrices.sum(axis=0).tolist(),
        "majority": {"class": classes[best], "miou": majority},
    }
