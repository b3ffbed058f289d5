"""The training step against the official code's, on the same images; and where its time goes.

    pip install -e .[bench]
    python benchmarks/step.py [--workload=resnet50|resnet18_cifar|bn_groups] [--rounds=5]
    python benchmarks/step.py --profile

Workers run in turn, each with the whole machine to itself, on batches that are already there. The
step is complete: both encoders, loss, accuracy, queue, optimizer. `--profile` measures the parts of
our step one by one, on any device that TensorFlow knows, and the device's own limits beside them.
"""

import argparse
import sys
import time

import harness
import parts

WORKERS = (
    "torch channels-last",
    "torch contiguous",
    "moco_tf",
    "moco_tf XLA",
    "moco_tf in one group",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=parts.WORKLOADS, default="resnet50")
    parser.add_argument("--workers", default="torch channels-last;moco_tf", help=f"of {WORKERS}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--batch", type=int, help="rows; the workload's own if not given")
    parser.add_argument("--bfloat16", action="store_true", help="compute in it; for GPU and TPU")
    parser.add_argument("--profile", action="store_true", help="the parts of our step")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    workload = parts.WORKLOADS[args.workload]
    batch = args.batch or workload["batch"]
    if args.profile:
        rows, facts = parts.profile(workload, batch, args.bfloat16)
        title = f"{args.workload}, batch {batch}: parts of the step"
        harness.report(title, ("part", "ms", "share of the step"), rows, **facts)
        return
    if args.worker:
        __import__("torch" if args.worker.startswith("torch") else "tensorflow")
        base = harness.peak_memory()  # the library's own
        step = make_step(args.worker, workload, batch, args.bfloat16)
        step()
        harness.serve(lambda: measure(step, args.steps, batch, base))
        return
    results = harness.compare(args.workers.split(";"), args.rounds, sys.argv[1:])
    speed, memory = (harness.medians(results, k) for k in ("images_per_second", "peak_gb"))
    peer = next(iter(speed))
    harness.report(
        f"{args.workload}, batch {batch}, queue {workload['queue_size']}",
        ("step", "images/s", f"against {peer}", "peak memory, GB"),
        [(name, value, value / speed[peer], memory[name]) for name, value in speed.items()],
    )


def measure(step, steps, batch, base):
    """Wall time of a round, and the process' peak memory above what it had before the model."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    return {"images_per_second": steps * batch / seconds, "peak_gb": harness.peak_memory() - base}


def make_step(worker, workload, batch, bfloat16):
    """A function that trains one step on a batch of random images and waits for its loss."""
    if worker.startswith("torch"):
        return torch_step(workload, batch, worker.endswith("last"))
    if worker.endswith("in one group"):
        workload = workload | {"bn_groups": 1}
    model, views = parts.make_model(workload, batch, bfloat16)
    step = parts.compiled(model.step, worker.endswith("XLA"))
    return lambda: float(step(views)["loss"])


def torch_step(workload, batch, channels_last):
    """The peer's step."""
    import torch
    import torch_moco

    layout = torch.channels_last if channels_last else torch.contiguous_format
    bottleneck = workload["backbone"] == "resnet50"
    encoders = [
        torch_moco.encoder(
            (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2),
            bottleneck=bottleneck,
            stem=workload["stem"],
            head=workload["head"],
            bn_groups=workload["bn_groups"],
        ).to(memory_format=layout)
        for _ in range(2)
    ]
    model = torch_moco.MoCo(
        *encoders, workload["queue_size"], 0.999, 0.2, learning_rate=0.03, weight_decay=1e-4
    )
    size = workload["image_size"]
    views = [torch.randn(batch, 3, size, size).to(memory_format=layout) for _ in range(2)]
    return lambda: model.step(*views)


if __name__ == "__main__":
    main()
