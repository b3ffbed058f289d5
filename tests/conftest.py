"""Four logical CPU devices for all tests, and strategies over them."""

import functools
import gc
import itertools
import os

# Each of pytest's workers has one core; more threads of OpenMP would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from moco_tf import startup  # isort: skip  # before anything imports TensorFlow
import keras
import pytest
import tensorflow as tf


def pytest_collection_finish():
    """Spares the garbage collector the packages' objects, a million that live to the end."""
    gc.collect()
    gc.freeze()


def pytest_configure():
    """Before any test module is imported: devices are fixed once TensorFlow has started."""
    with startup.quiet():
        cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)


@pytest.fixture(scope="session", autouse=True)
def numbered_strategies():
    """Lets strategies over different devices follow one another in this process.

    TensorFlow numbers the device groups of each strategy from the same start, and aborts when
    a number comes again for a group of another size.
    """
    starts = itertools.count(step=1000)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy):
            patch.setattr(kind, "_collective_key_base", property(lambda self: next(starts)))
        yield


@pytest.fixture(scope="session", autouse=True)
def generated_images():
    """Makes the images of each split once for all runs, which takes longer than a tiny run."""
    from moco_tf.data.sources import synthetic

    with pytest.MonkeyPatch.context() as patch:
        for name, (draw, classes) in synthetic.CONTENTS.items():
            patch.setitem(synthetic.CONTENTS, name, (functools.cache(draw), classes))
        yield


@pytest.fixture(scope="session")
def mirrored():
    """`mirrored(n)`: a strategy over n replicas; TensorFlow's default one for n = 1."""

    @functools.cache
    def strategy(n):
        if n == 1:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(n)])

    return strategy


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Frees the models of a module, which hold themselves in cycles."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """The workdir of a tiny run on a folder of generated images, with train/ and test/.

    All tests share it: copy it before you write into it.
    """
    import tiny  # not before the devices are set

    root = tmp_path_factory.mktemp("pretrained")
    source = f"folder:{tiny.shapes_folder(root / 'data')}/train"
    tiny.pretrain(root / "run", checkpoint_every_steps=2, data__source=source)
    return root / "run"
