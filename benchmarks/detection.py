"""Speed and memory of a detector's training and inference, on a random image of full size.

    python benchmarks/detection.py [--architecture=fpn|c4|dc5] [--short_px=800] [--profile]

Mask R-CNN on a ResNet-50 with the paper's numbers: 512 regions in training; in inference 1,000
proposals, and 100 detections of 80 classes. Two workers run in turn, so that each has the whole
machine and its own peak of memory. `--profile` measures the parts one by one instead.
"""

import argparse
import dataclasses
import sys
import time

import harness
import parts

WORKERS = ("training", "inference")
CLASSES, OBJECTS = 80, 8
LARGEST_PX = 256  # side of an object


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=("fpn", "c4", "dc5"), default="fpn")
    parser.add_argument("--backbone", default="resnet50", help="of `moco_tf.resnet`")
    parser.add_argument("--short_px", type=int, default=800, help="the long side is 5/3 of it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="the parts")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    long_px = -(-args.short_px * 5 // 3 // 32) * 32
    title = f"Mask R-CNN {args.architecture}, {args.backbone}, {args.short_px} x {long_px} px"
    if args.worker:
        __import__("tensorflow")
        base = harness.peak_memory()  # the library's own
        model, batch = make(args, long_px)
        run = whole(model, batch)[args.worker]
        run()
        harness.serve(lambda: measure(run, base))
    elif args.profile:
        model, batch = make(args, long_px)
        for name, run in whole(model, batch).items():
            seconds = {"whole": parts.measure(run)}
            pieces = training_parts if name == "training" else inference_parts
            for part, fn in pieces(model, batch).items():
                seconds[part] = parts.measure(parts.compiled(fn))
            rows = [(part, s, s / seconds["whole"]) for part, s in seconds.items()]
            harness.report(f"{title}: {name}", ("part", "s an image", "share"), rows)
    else:
        results = harness.compare(WORKERS, args.rounds, sys.argv[1:])
        seconds, memory = (harness.medians(results, k) for k in ("seconds", "peak_gb"))
        rows = [(name, s, 1 / s, memory[name]) for name, s in seconds.items()]
        harness.report(title, ("what", "s an image", "images/s", "peak memory, GB"), rows)


def measure(run, base):
    """Wall time of a run, and the process' peak of memory above its memory before the model."""
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gb": harness.peak_memory() - base}


def make(args, long_px):
    """A compiled `Detector`, and a batch of one random image with random objects."""
    import keras
    import tensorflow as tf

    from moco_tf import SGD, Encoder, heads, resnet
    from moco_tf.detection.model.detector import Detector
    from moco_tf.detection.model.network import make_network
    from moco_tf.detection.model.settings import RCNN_SETTINGS

    keras.utils.set_random_seed(0)
    encoder = Encoder(getattr(resnet, args.backbone)(), heads.mlp())
    network = make_network(encoder, args.architecture, CLASSES, masks=True)
    # No score of an untrained network is above the usual .05.
    settings = dataclasses.replace(RCNN_SETTINGS[args.architecture], lowest_score=0.0)
    model = Detector(network, lambda x: tf.cast(x, tf.float32) / 255 - 0.5, settings)
    model.compile(SGD(0.0, weight_decay=1e-4))
    model.optimizer.build(model.trainable_variables)
    size = [args.short_px, long_px]
    limits = tf.constant(size[::-1], tf.float32)
    first = tf.random.uniform([1, OBJECTS, 2]) * (limits - LARGEST_PX)
    sides = tf.random.uniform([1, OBJECTS, 2], 16, LARGEST_PX)
    return model, {
        "x": tf.cast(tf.random.uniform([1, *size, 3], 0, 256, tf.int32), tf.uint8),
        "size": tf.constant([size]),
        "boxes": tf.concat([first, first + sides], axis=-1),
        "label": tf.random.uniform([1, OBJECTS], 0, CLASSES, tf.int32),
        "mask": tf.ones([1, OBJECTS, 112, 112], tf.uint8),
        "step": tf.zeros([1], tf.int64),
    }


def whole(model, batch):
    """Training and inference, each a graph."""
    step, predict = parts.compiled(model.step), parts.compiled(model.predict)
    return {
        "training": lambda: float(step(batch)["loss"]),
        "inference": lambda: float(predict(batch["x"], batch["size"])["score"][0, 0]),
    }


def training_parts(model, batch):
    """Graphs of a step that end early; the rest is the gradient and the update."""
    images = model._normalize(batch["x"])
    return {
        "backbone, maps, RPN's head, forward": lambda: model.network(images, training=True),
        "all, forward": lambda: model.losses(batch),
    }


def inference_parts(model, batch):
    """The parts of `Detector.predict`, each fed with the outputs of those before it."""
    import tensorflow as tf

    from moco_tf.detection.model import box_head, rpn
    from moco_tf.detection.model.network import LARGE, SMALL

    network, settings, size = model.network, model.settings, batch["size"]
    images = model._normalize(batch["x"])
    outputs = {}  # of the parts

    def proposals():
        _, grids, logits, deltas = outputs["backbone, maps, RPN's head"]
        before, after = settings.before_nms[1], settings.after_nms[1]
        return rpn.proposals(grids, logits, deltas, size, before, after)

    def regions(boxes, side):
        maps = outputs["backbone, maps, RPN's head"][0]
        return network.regions(maps, boxes, side, sampling_ratio=settings.sampling_ratio)

    def detections():
        logits, deltas = (x[None] for x in outputs["box head"])
        boxes, is_valid = outputs["proposals"]
        return box_head.detections(
            logits, deltas, boxes, is_valid, size, settings.detections, lowest_score=0.0
        )

    steps = {
        "backbone, maps, RPN's head": lambda: network(images),
        "proposals": proposals,
        "RoIAlign of the box head": lambda: regions(outputs["proposals"][0], SMALL),
        "box head": lambda: network.box(outputs["RoIAlign of the box head"]),
        "detections": detections,
        "RoIAlign of the mask head": lambda: regions(outputs["detections"]["boxes"], LARGE),
        "mask head": lambda: tf.sigmoid(network.mask(outputs["RoIAlign of the mask head"])),
    }
    for name, fn in steps.items():
        outputs[name] = parts.compiled(fn)()
    return steps


if __name__ == "__main__":
    main()
