"""What a step exchanges and holds per replica, as replicas grow.

    python benchmarks/scaling.py [--workload=resnet50] [--rows=32]

1 to 8 replicas: collectives and bytes read off the step's graph, traced over logical CPU devices.
Beyond: the same terms by formula, which must agree with the graph where both are known. On TPU a
gather is an all-reduce of a buffer that holds all replicas' rows.
"""

import argparse

import collectives
import harness
import parts

TRACED = (1, 2, 4, 8)
PODS = (16, 32, 64, 128, 256)
# Activations of a ResNet-50 row of 224 px: step.py's peak memory with --batch=24 less that with 8;
# the temporary memory of `make tpu-compile`, for 32 rows.
ROW_MB = {"float32": 107, "bfloat16": 44}
DEVICES = {  # memory of a replica in GB, arithmetic, replicas
    "GPU, 16 GB": (16, "float32", 1),
    "GPU, 80 GB": (80, "float32", 1),
    "TPU v3-8": (16, "bfloat16", 8),
    "TPU v5e-8": (16, "bfloat16", 8),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=parts.WORKLOADS, default="resnet50")
    parser.add_argument("--rows", type=int, default=32, help="of a replica")
    args = parser.parse_args()

    import tensorflow as tf

    devices = [tf.config.LogicalDeviceConfiguration()] * max(TRACED)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, devices)

    workload = parts.WORKLOADS[args.workload]
    model, _ = parts.make_model(workload, args.rows)
    size = sizes(model)
    rows = []
    for replicas in TRACED + PODS:
        terms = exchanged(size, args.rows, replicas)
        if replicas in TRACED:
            program = traced(workload, args.rows, replicas)
            if sorted(program) != sorted(terms.values()):
                raise AssertionError(f"{replicas} replicas: graph {program}, formula {terms}.")
        gather = replicas * terms.get("keys", 0)
        how = "graph and formula" if replicas in TRACED else "formula"
        rows.append(
            (replicas, *(terms.get(k, 0) for k in ("gradients", "keys", "order")), gather, how)
        )
    harness.report(
        f"{args.workload}, {args.rows} rows a replica: bytes that a replica gives in a step",
        ("replicas", "gradients", "keys", "order", "keys of all, received", "read off"),
        rows,
        held_mb={name: 4 * floats / 1e6 for name, floats in held(size).items()},
    )
    if args.workload == "resnet50":
        columns = ("device", "rows a replica", "global batch")
        harness.report(f"What fits, queue {size['queue']}", columns, fits(size, DEVICES))


def fits(size, devices):
    """Rows of (device, rows a replica, global batch) that nine tenths of the memory hold."""
    fixed = 4 * sum(held(size).values())
    rows = []
    for name, (gigabytes, dtype, replicas) in devices.items():
        most = int((0.9e9 * gigabytes - fixed) / (1e6 * ROW_MB[dtype])) // 8 * 8
        rows.append((f"{name}, {dtype}", most, most * replicas))
    return rows


def sizes(model):
    """Numbers of floats: parameters of an encoder, length of a key, rows of the queue."""
    parameters = sum(v.shape.num_elements() for v in model.encoder_q.trainable_variables)
    return {"parameters": parameters, "dim": model.queue.shape[1], "queue": model.queue_size}


def held(size):
    """Floats that each replica holds besides activations."""
    return {
        "query encoder": size["parameters"],
        "key encoder": size["parameters"],
        "velocity": size["parameters"],
        "gradients": size["parameters"],
        "queue": size["queue"] * size["dim"],
    }


def exchanged(size, rows, replicas):
    """Bytes that a replica gives to each collective of a step."""
    if replicas == 1:
        return {}
    return {
        "gradients": 4 * size["parameters"],
        "keys": 4 * rows * size["dim"],
        "order": 4 * rows,
        "finite": 4,  # one float: does the step count on all replicas?
    }


def traced(workload, rows, replicas):
    """The same as a list, read off the graph of the step on so many replicas."""
    import tensorflow as tf

    if replicas == 1:
        strategy = tf.distribute.get_strategy()
    else:
        # This strategy writes each exchange as a collective op, also within one process.
        kind = tf.distribute.MultiWorkerMirroredStrategy
        kind._collective_key_base = 1000 * replicas  # else groups of two sizes share a number
        strategy = kind._from_local_devices([f"CPU:{i}" for i in range(replicas)])
    with strategy.scope():
        model, _ = parts.make_model(workload, rows)
    size = workload["image_size"]
    images = tf.TensorSpec([rows, size, size, 3])
    numbers = tf.TensorSpec([rows], tf.int32)
    batch = {"x_q": images, "x_k": images, "row": numbers, "order": numbers}

    zeros = strategy.experimental_distribute_values_from_function(
        lambda _: {name: tf.zeros(spec.shape, spec.dtype) for name, spec in batch.items()}
    )
    run = parts.compiled(lambda batch: strategy.run(model.step, (batch,)))
    graph = run.get_concrete_function(zeros).graph
    return [bytes for _, _, bytes in collectives.count(graph, replicas)]


if __name__ == "__main__":
    main()
