"""Images without objects as background: in batches, and in the losses of a step."""

import numpy as np
import pytest
import shapes
from detection_sets import FILL, annotation
from home_made import BOX, coco
from small_detectors import make_detector

from moco_tf.data.batch_layout import BatchLayout
from moco_tf.detection.data import pipeline
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.data.objects import EMPTY


def test_batches_have_the_images_without_objects(tmp_path):
    address = coco(tmp_path, [annotation(1, BOX), annotation(1, (8, 8, 30, 30))], count=3)
    annotations = open_annotations(address, training=True, masks=True, keep_empty=True)
    data = pipeline.detection_dataset(
        annotations, BatchLayout(3, 1, 1), fill=FILL, short_px=(40,), repeat_threshold=0.5
    )
    (batch,) = data.take(1).as_numpy_iterator()
    names = [bytes(name).split(b"\0")[0].decode() for name in batch["name"]]
    has_objects = [name.endswith("001.png") for name in names]
    assert sum(has_objects) in (1, 2) and sum(has_objects) < 3
    for label, boxes, has_any in zip(batch["label"], batch["boxes"], has_objects, strict=True):
        assert np.all(label == EMPTY) != has_any and np.any(boxes) == has_any


@pytest.mark.parametrize("empty_rows", [[1], [0, 1]])
def test_losses_of_images_without_objects_are_those_of_background(empty_rows):
    model = make_detector("fpn", width_divisor=32, rate=0.0)
    batch = shapes.batch(0, 2)
    for name in ("boxes", "mask", "keypoints"):
        batch[name][empty_rows] = 0
    batch["label"][empty_rows] = EMPTY
    losses = {name: float(loss) for name, loss in model.step(batch).items()}
    assert np.isfinite(list(losses.values())).all()
    assert losses["rpn_class"] > 0 and losses["box_class"] > 0
    if len(empty_rows) == 2:
        assert losses["rpn_box"] == losses["box_delta"] == losses["mask"] == 0
