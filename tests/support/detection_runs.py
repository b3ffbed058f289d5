"""Short runs of a detection: a drawn set, the config, the command, and the names of the metrics."""

import numpy as np
import tensorflow as tf
import tiny
from detection_sets import annotation, write_coco

from moco_tf.detection import config as configs
from moco_tf.evaluation.task import evaluate

CLASSES = ({"id": 3, "name": "red"}, {"id": 9, "name": "<green>"})
COLORS = {3: (230, 30, 30), 9: (30, 200, 120)}
JOINTS = [f"{side}_{i}" for side in ("left", "right") for i in range(8)] + ["nose"]
SHORT_RUN = {
    "data.short_px": (64, 72),
    "data.test_short_px": 64,
    "data.longest_px": 96,
    "data.max_objects": 4,
    "masks": True,
    "width_divisor": 16,
    "sampling_ratio": 2,
    "before_nms": (200, 100),
    "after_nms": (64, 32),
    "regions": 32,
    "detections": 10,
    "optimizer.milestones_steps": (8,),
    "optimizer.warmup_steps": 2,
    "batch_size": 4,
    "steps": 10,
    "bn_statistics_batches": 2,
    "test_every_steps": 5,
    "test_batch_size": 4,
    "log_every_steps": 1,
    "checkpoint_every_steps": 3,
}


def write_set(folder, count, seed):
    """Bright boxes on noise, two an image; the third has a crowd too, the last has nothing.

    The keypoints of a box are on its diagonal.
    """
    rng, annotations, images = np.random.default_rng(seed), [], []
    for number in range(1, count + 1):
        height, width = (64, 80) if number % 3 else (80, 64)
        image = rng.integers(60, 120, (height, width, 3)).astype(np.uint8)
        for left in (0, 32) if number < count else ():
            category = int(rng.choice([*COLORS]))
            x1, y1 = left + rng.integers(2, 8), rng.integers(2, 28)
            x2, y2 = x1 + rng.integers(14, 24), y1 + rng.integers(16, 30)
            image[y1:y2, x1:x2] = COLORS[category]
            points = np.linspace([x1 + 1, y1 + 1, 2], [x2 - 1, y2 - 1, 2], 17).ravel().tolist()
            box = tuple(map(int, (x1, y1, x2, y2)))
            annotations.append(annotation(number, box, category, keypoints=points))
        if number == 3:
            rle = {"size": [height, width], "counts": [50, height - 50] * width}
            crowd = annotation(3, (0, 50, width, height), 3, iscrowd=1, keypoints=[0] * 51)
            annotations.append(crowd | {"segmentation": rle})
        images.append(image)
    sizes = [image.shape[:2] for image in images]
    classes = [{**c, "keypoints": JOINTS} for c in CLASSES]
    return write_coco(folder, sizes, annotations, classes, images)


def make_config(data, **overrides):
    """The checked config of a short run; a nested field is given as data__field."""
    config = configs.Detection()
    given = {"data.train": data[0], "data.test": data[1], **SHORT_RUN}
    given |= {name.replace("__", "."): value for name, value in overrides.items()}
    for name, value in given.items():
        part, _, last = name.rpartition(".")
        setattr(getattr(config, part) if part else config, last, value)
    configs.check(config)
    return config


def detect(data, encoder, workdir, strategy=None, **overrides):
    """Runs a short detection. Returns what results.json holds."""
    strategy = strategy or tf.distribute.get_strategy()
    config = make_config(data, **overrides)
    return evaluate("detection", config, str(encoder), str(workdir), strategy)


def command(encoder, workdir, data, *flags):
    """The command line that starts a short run."""
    config = f"--config={tiny.ROOT}/configs/transfer/coco_mask_rcnn_c4.py"
    given = {"data.train": data[0], "data.test": data[1], **SHORT_RUN}
    given["deterministic"] = True  # else threads add up the gradients of RoIAlign in any order
    given = [f"--config.{name}={value}" for name, value in given.items()]
    return [
        *tiny.command(workdir)[:3],
        "--script=evaluate.py",
        "--task=detection",
        f"--checkpoint={encoder}",
        config,
        f"--workdir={workdir}",
        *given,
        *flags,
    ]


def metric_names(*heads):
    """The names of the metrics of a run with these heads, such as "box"."""
    return {f"{head}_{ap}" for head in heads for ap in ("ap", "ap50", "ap75")}
