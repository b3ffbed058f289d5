"""Fine-tunes a pre-trained encoder on labelled photos, in plain Keras.

    python examples/finetune.py runs/quickstart photos/train photos/test [--frozen]

The folders have a sub-folder for each class. The first argument is the workdir of a run or an
encoder.keras. --frozen trains the classifier alone: the linear evaluation of the paper.
"""

import argparse

import keras

import moco_tf
from moco_tf import encoders


def labelled(folder, size, batch_size, shuffle):
    """Batches of images in 0..255 and integer labels, and the names of the classes."""
    data = keras.utils.image_dataset_from_directory(
        folder,
        image_size=(size, size),
        crop_to_aspect_ratio=True,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=0,
    )
    return data, data.class_names


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="workdir of a run, or encoder.keras")
    parser.add_argument("train", help="folder of training images")
    parser.add_argument("test", help="folder of test images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--frozen", action="store_true", help="train the classifier only")
    parser.add_argument("--output", default="classifier.keras", help="file to write")
    args = parser.parse_args(argv)

    # The encoder, and how its run prepared images: their size and normalization.
    loaded = moco_tf.load(args.checkpoint)
    crop = encoders.preprocessing(loaded)
    size = crop.image_size_px
    train, classes = labelled(args.train, size, args.batch_size, shuffle=True)
    test, test_classes = labelled(args.test, size, args.batch_size, shuffle=False)
    if classes != test_classes:
        raise SystemExit(f"The two folders must have the same classes. Received: {test_classes}.")

    backbone = loaded.encoder.backbone
    backbone.trainable = not args.frozen
    images = keras.Input((size, size, 3))
    x = keras.layers.RandomFlip("horizontal")(images)
    x = keras.layers.Normalization(
        mean=[255 * m for m in crop.recipe.mean], variance=[(255 * s) ** 2 for s in crop.recipe.std]
    )(x)
    x = backbone(x)
    model = keras.Model(images, keras.layers.Dense(len(classes))(x))

    model.compile(
        keras.optimizers.SGD(args.learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # `train` is shuffled already; Keras warns otherwise.
    model.fit(train, validation_data=test, epochs=args.epochs, verbose=2, shuffle=False)
    accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    model.save(args.output)
    print(f"{args.output}: {accuracy:.1%} of the test images, {len(classes)} classes")


if __name__ == "__main__":
    main()
