"""Makes the `tf.distribute.Strategy` of a run: one device, several, several hosts, or a TPU."""

import json
import os
import pathlib

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")

GOOGLE = 0x1AE0  # PCI vendor; also of network cards and disks of Google's machines without a TPU
TPUS = {  # PCI device of each kind of TPU. Source: jax-ml/jax, jax/_src/hardware_utils.py
    0x0027: "v2, v3",
    0x0056: "without a public name",
    0x005E: "v4",
    0x0062: "v5p",
    0x0063: "v5e",
    0x006F: "v6e",
    0x0076: "v7",
}


def make_strategy(name="auto", tpu=None):
    """Makes the `tf.distribute.Strategy` for a name of `STRATEGIES`.

    Args:
        name: "none" (one device), "mirrored" (all local GPUs, or all logical CPUs where
            there is no GPU), "multiworker" (`TF_CONFIG` names the cluster), "tpu", or "auto":
            multiworker if `TF_CONFIG` has a cluster, else TPU if `tpu` is given or a TPU is
            attached, else mirrored if there are several GPUs, else none.
        tpu: the TPU's name for "tpu"; None means "local", right on a TPU VM.

    Returns:
        A strategy; TensorFlow's default one for "none".

    Raises:
        ValueError: for an unknown name, or a cluster or devices that are not there.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"`--strategy` must be one of {', '.join(STRATEGIES)}. Received: {name!r}."
        )
    if name == "auto":
        name = _detect(tpu)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if name == "tpu":
        return _make_tpu_strategy(tpu or "local")
    if name == "multiworker":
        if not _cluster():
            raise ValueError(
                "`--strategy=multiworker` needs the cluster in the environment variable TF_CONFIG. "
                f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}. See README, several hosts."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.get_strategy()


def accelerators() -> list[tf.config.LogicalDevice]:
    """The GPUs and TPUs that TensorFlow sees."""
    return tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")


def _detect(tpu):
    if _cluster():
        return "multiworker"
    if tpu or tf.config.list_physical_devices("TPU") or has_tpu():
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def has_tpu(root: str | os.PathLike = "/") -> bool:
    """Whether a TPU is attached to this machine: as /dev/accel0 (up to v4), or as a PCI device.

    Newer TPUs are passed through as /dev/vfio, but so are other devices.

    Args:
        root: folder that holds the machine's dev/ and sys/.
    """
    root = pathlib.Path(root)
    if (root / "dev" / "accel0").exists():
        return True
    devices = root.glob("sys/bus/pci/devices/*")
    return any(_pci_id(d, "vendor") == GOOGLE and _pci_id(d, "device") in TPUS for d in devices)


def _pci_id(device, name):
    """The vendor or device number of a PCI device; None if it cannot be read."""
    try:
        return int((device / name).read_text(), 16)
    except (OSError, ValueError):
        return None


def _cluster():
    return json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster")


def _make_tpu_strategy(tpu):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    if tpu != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)
