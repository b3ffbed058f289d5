"""The workloads of the step benchmark, and the parts of our step measured one by one."""

import time

WORKLOADS = {
    "resnet50": {
        "backbone": "resnet50",
        "stem": "imagenet",
        "head": "mlp",
        "image_size": 224,
        "batch": 8,
        "bn_groups": 1,
        "queue_size": 65536,
    },
    "resnet18_cifar": {
        "backbone": "resnet18",
        "stem": "cifar",
        "head": "linear",
        "image_size": 32,
        "batch": 256,
        "bn_groups": 8,
        "queue_size": 4096,
    },
    # Memory as of one row of 224 px for four of these, so that eight groups fit a small machine.
    "bn_groups": {
        "backbone": "resnet50",
        "stem": "imagenet",
        "head": "mlp",
        "image_size": 112,
        "batch": 64,
        "bn_groups": 8,
        "queue_size": 65536,
    },
    # The same parts in seconds, to try the benchmark itself.
    "tiny": {
        "backbone": "resnet18",
        "stem": "cifar",
        "head": "mlp",
        "image_size": 16,
        "batch": 8,
        "bn_groups": 2,
        "queue_size": 64,
    },
}


def make_model(workload, batch, bfloat16=False):
    """A compiled `MoCo` and a batch of random views for its `step`, with an order to undo."""
    import keras
    import tensorflow as tf

    from moco_tf import SGD, Encoder, MoCo, heads, resnet

    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bfloat16 else "float32")
    backbone = getattr(resnet, workload["backbone"])(
        stem=workload["stem"], bn_group_size=batch // workload["bn_groups"]
    )
    encoder = Encoder(backbone, getattr(heads, workload["head"])())
    model = MoCo(encoder, workload["queue_size"], momentum=0.999, temperature=0.2)
    model.compile(SGD(0.03, weight_decay=1e-4))
    model.optimizer.build(model.trainable_variables)
    size = workload["image_size"]
    x_q, x_k = (tf.random.normal([batch, size, size, 3]) for _ in range(2))
    rows = tf.range(batch)
    return model, {"x_q": x_q, "x_k": x_k, "row": rows, "order": tf.random.shuffle(rows)}


def compiled(fn, jit_compile=False):
    """`fn` as a graph."""
    import tensorflow as tf

    return tf.function(fn, autograph=False, jit_compile=jit_compile)


def profile(workload, batch, bfloat16):
    """Times of the parts, each a graph of its own.

    Returns:
        Rows (part, ms, share of the step), and facts: floating-point operations of a step and the
        share of the device's matrix-product ceiling that it reaches; the share of the copy ceiling
        that the momentum update reaches.
    """
    import tensorflow as tf

    from moco_tf.contrastive import info_nce

    model, views = make_model(workload, batch, bfloat16)
    variables = model.encoder_q.trainable_variables
    x_q, x_k = views["x_q"], views["x_k"]
    fixed = tf.math.l2_normalize(tf.random.normal([batch, model.queue.shape[1]]), axis=1)
    gradients = [tf.zeros(v.shape) for v in variables]

    def encode_queries():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model.encoder_q(x_q, training=True) * fixed)
        return [tf.reduce_sum(g) for g in tape.gradient(loss, variables)]

    def contrast():
        """The loss and its gradient, of embeddings that are already there."""
        with tf.GradientTape() as tape:
            tape.watch(fixed)
            l_pos = tf.reduce_sum(fixed * fixed, axis=1)
            l_neg = tf.matmul(fixed, model.queue, transpose_b=True)
            logs = info_nce(l_pos, l_neg, model.temperature)
        return tape.gradient(logs["loss"], fixed)

    steps = {
        "whole step": lambda: model.step(dict(views))["loss"],
        "query encoder, forward and backward": encode_queries,
        "key encoder, forward": lambda: model.encoder_k(x_k, training=True),
        "momentum update": model._momentum_update_key_encoder,
        "logits, loss, accuracy and their gradient": contrast,
        "enqueue": lambda: model._dequeue_and_enqueue(fixed, True),
        "optimizer": lambda: model.optimizer.apply(gradients, variables),
    }
    seconds = {name: measure(compiled(fn)) for name, fn in steps.items()}
    whole = seconds["whole step"]
    rows = [(name, 1000 * s, s / whole) for name, s in seconds.items()]
    encoders = sum(s for name, s in seconds.items() if "encoder" in name)
    rows.append(("all but the encoders", 1000 * (whole - encoders), 1 - encoders / whole))

    flops = count_flops(compiled(steps["whole step"]))
    matmul, copy = ceilings(tf.bfloat16 if bfloat16 else tf.float32)
    moved = 3 * 4 * sum(v.shape.num_elements() for v in variables)  # two read, one written
    return rows, {
        "device": tf.config.list_logical_devices()[-1].name,
        "gflop_per_step": flops / 1e9,
        "matmul_ceiling_gflops": matmul / 1e9,
        "step_share_of_matmul_ceiling": flops / whole / matmul,
        "copy_ceiling_gb_per_s": copy / 1e9,
        "momentum_update_share_of_copy_ceiling": moved / seconds["momentum update"] / copy,
    }


def measure(fn, seconds=3.0):
    """Median time of `fn`, after it has been compiled, over about so many seconds."""
    import numpy as np
    import tensorflow as tf

    def once():
        start = time.perf_counter()
        fn()
        tf.test.experimental.sync_devices()
        return time.perf_counter() - start

    once()
    count = int(np.clip(seconds / max(once(), 1e-6), 3, 200))
    return float(np.median([once() for _ in range(count)]))


def count_flops(function):
    """Floating-point operations of a function's convolutions and matrix products, by its graph."""
    import tensorflow as tf

    options = tf.compat.v1.profiler.ProfileOptionBuilder
    options = options(options.float_operation()).with_empty_output().build()
    graph = function.get_concrete_function().graph
    return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


def ceilings(dtype):
    """What the device does at most: flop/s of a large matrix product, bytes/s read and written."""
    import tensorflow as tf

    n = 2048 if tf.config.list_logical_devices("GPU") == [] else 8192
    a = tf.cast(tf.random.normal([n, n]), dtype)
    seconds = measure(compiled(lambda: tf.matmul(a, a)))
    x = tf.random.normal([64 << 20])
    return 2 * n**3 / seconds, 2 * 4 * x.shape[0] / measure(compiled(lambda: x + 1.0))
