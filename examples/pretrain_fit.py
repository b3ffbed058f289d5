"""Pre-trains a small encoder with MoCo by `model.fit`, on generated images or a folder of yours.

    python examples/pretrain_fit.py [--images=folder:photos] [--epochs=10] [--output=encoder.keras]

Generated images need no download. Their kNN accuracy is measured after each epoch.
"""

import argparse

import moco_tf
from moco_tf import SGD, Encoder, MoCo, heads, resnet, two_views
from moco_tf.data import recipes, sources
from moco_tf.probes.monitor import Monitor

GENERATED = "synthetic:fabrics"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default=GENERATED, help="address of the images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size_px", type=int, default=32, help="side of the views")
    parser.add_argument("--width", type=int, default=8, help="channels of the first stage")
    parser.add_argument("--output", default="encoder.keras", help="file to write")
    args = parser.parse_args(argv)

    # The encoder: a narrow ResNet-18, and the two-layer head of MoCo v2. BN groups of half of the
    # batch make shuffle-BN work on one device.
    group = args.batch_size // 2
    backbone = resnet.resnet18(
        stem="cifar", width=args.width, bn_group_size=group, zero_init_residual=True
    )
    encoder = Encoder(backbone, heads.mlp(dim=128))

    # MoCo makes the key encoder, a copy, and the queue of keys.
    model = MoCo(encoder, queue_size=8 * args.batch_size, momentum=0.99, temperature=0.08)
    model.compile(SGD(0.05, weight_decay=5e-4))

    # Pairs of random views of the same images, by the augmentation of MoCo v2; for the generated
    # ones by their own, which is gentler.
    recipe = GENERATED if args.images == GENERATED else "moco:v2"
    views = two_views(
        args.images, recipe, batch_size=args.batch_size, image_size_px=args.image_size_px
    )

    callbacks = []
    if args.images == GENERATED:  # they have labels, which only the monitor sees
        monitor = Monitor(
            bank=sources.open_source(f"{GENERATED}:train"),
            queries=sources.open_source(f"{GENERATED}:test"),
            recipe=recipes.find(recipe),
            image_size_px=args.image_size_px,
        )
        callbacks.append(monitor)
    history = model.fit(views, epochs=args.epochs, callbacks=callbacks, verbose=2)

    encoder.save(args.output)
    print(f"{args.output}: loss {history.history['loss'][-1]:.3f}, moco_tf {moco_tf.__version__}")


if __name__ == "__main__":
    main()
