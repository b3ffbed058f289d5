"""Lowers the whole training step of one replica to StableHLO, for `tpu_compile.py`.

    python benchmarks/tpu_lower.py --output=step.mlir [--workload=resnet50] [--batch=32]

The step is the one that a TPU trains with: colors and blur of uint8 views, both encoders in
bfloat16, loss, queue and optimizer. Needs TensorFlow, and no TPU.
"""

import argparse

import parts
import tensorflow as tf

from moco_tf.data.recipes import moco


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=parts.WORKLOADS, default="resnet50")
    parser.add_argument("--batch", type=int, default=32, help="rows of the replica")
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    text = lower(parts.WORKLOADS[args.workload], args.batch)
    with open(args.output, "w") as file:
        file.write(text)
    print(f"{args.output}: {len(text) / 1e6:.1f} MB of StableHLO")


def lower(workload, batch):
    """StableHLO text of a step whose inputs are the views, their draws and the variables."""
    model, _ = parts.make_model(workload, batch, bfloat16=True)
    recipe, size = moco.v2, workload["image_size"]

    def step(images_q, images_k, draws_q, draws_k, row, order):
        x_q, x_k = recipe.photometric(images_q, draws_q), recipe.photometric(images_k, draws_k)
        return model.step({"x_q": x_q, "x_k": x_k, "row": row, "order": order})

    images = tf.TensorSpec([batch, size, size, 3], tf.uint8)
    draws, rows = tf.TensorSpec([batch, recipe.num_draws]), tf.TensorSpec([batch], tf.int32)
    compiled = parts.compiled(step, jit_compile=True)
    lowered = compiled.experimental_get_compiler_ir(images, images, draws, draws, rows, rows)
    return lowered(stage="stablehlo")


if __name__ == "__main__":
    main()
