"""The first epoch of the CIFAR-10 demo in PyTorch and PIL, to compare our loss curve with.

    pip install -e .[bench]
    python benchmarks/torch_cifar.py --data_dir=DIR [--seed=0] [--width=64]

Beside `train.py --config=configs/cifar10_demo.py --config.stop_after_steps=97`: the same recipe
through other code, from the decoding of the images to the optimizer. DIR holds TFDS' cifar10.
"""

import argparse
import math
import random

import numpy as np
import torch
import torch_moco
import torch_views
from PIL import Image

BATCH, EPOCHS = 512, 200
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of prepared TFDS data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)

    import tensorflow_datasets as tfds

    data = tfds.load("cifar10", split="train", batch_size=-1, data_dir=args.data_dir)
    images = [Image.fromarray(image) for image in tfds.as_numpy(data)["image"]]
    view = torch_views.official(32, 0.08, MEAN, STD, blur=False)
    encoders = [
        torch_moco.encoder(
            (2, 2, 2, 2),
            bottleneck=False,
            width=args.width,
            stem="cifar",
            head="linear",
            bn_groups=8,
        ).to(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    learning_rate = 0.06 * 0.5 * (1 + math.cos(math.pi / EPOCHS))  # the epoch counts from 1
    model = torch_moco.MoCo(*encoders, 4096, 0.99, 0.1, learning_rate, weight_decay=5e-4)

    order, losses = torch.randperm(len(images)).tolist(), []
    for step in range(len(images) // BATCH):
        batch = [images[i] for i in order[step * BATCH : (step + 1) * BATCH]]
        views = [torch.stack([view(image) for image in batch]) for _ in range(2)]
        views = [x.to(memory_format=torch.channels_last) for x in views]
        losses.append(model.step(*views)[0])
        print(f"step {step + 1} loss {losses[-1]:.3f} mean {np.mean(losses):.3f}", flush=True)


if __name__ == "__main__":
    main()
