"""Strategies and replicas: the only file that knows there is more than one device.

Everything else calls these functions, which do the right thing for one replica as
for many. Rows of the global batch are numbered 0..B-1; a replica holds B/R of them.
"""

import functools
import json
import math
import os

import numpy as np
import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")


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


def _detect(tpu):
    if _cluster():
        return "multiworker"
    if tpu or tf.config.list_physical_devices("TPU") or os.path.exists("/dev/accel0"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _cluster():
    return json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster")


def _make_tpu_strategy(tpu):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    if tpu != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy):
    """Whether this process writes logs, checkpoints and the report: worker 0, or the only one."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def num_hosts(strategy):
    """Number of hosts, each of which feeds the replicas attached to it."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return strategy.extended.num_hosts
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        cluster = strategy.cluster_resolver.cluster_spec()
        return sum(cluster.num_tasks(j) for j in cluster.jobs if j in ("chief", "worker"))
    return 1


def num_workers(strategy):
    """Number of processes that run this program side by side."""
    return num_hosts(strategy) if _has_workers(strategy) else 1


def mean_over_workers(strategy, x):
    """Mean over the processes of numbers that each has of its own: float32 array; a collective."""
    x = np.asarray(x, np.float32)
    return np.asarray(_mean_function(strategy)(x)) if _has_workers(strategy) else x


@functools.cache
def _mean_function(strategy):
    def mean(x):
        return tf.distribute.get_replica_context().all_reduce("MEAN", tf.identity(x))

    def run(x):
        return strategy.experimental_local_results(strategy.run(mean, (x,)))[0]

    return tf.function(run, autograph=False)


def _has_workers(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


# Inside `strategy.run`, in replica context ------------------------------------------------------


def num_replicas():
    """R, the number of replicas that train in step."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def all_gather(x):
    """Joins all replicas' rows: nx... on each replica to (R*n)x... on all, in replica order."""
    if num_replicas() == 1:
        return x
    context = tf.distribute.get_replica_context()
    # The identity gives multi-worker a tensor of its own; the gather loses the static shape.
    gathered = context.all_gather(tf.identity(x), axis=0)
    return tf.ensure_shape(gathered, [num_replicas() * x.shape[0], *x.shape[1:]])


def mean(x):
    """The mean over replicas of a tensor that each has of its own, with a gradient."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce("MEAN", x)


def average(variables):
    """Sets the float32 ones of variables to their means over replicas, in one collective."""
    variables = [v for v in variables if v.dtype == "float32"]
    if num_replicas() == 1 or not variables:
        return
    flat = tf.concat([tf.reshape(v.value, [-1]) for v in variables], axis=0)
    parts = tf.split(mean(flat), [math.prod(v.shape) for v in variables])
    for variable, part in zip(variables, parts):
        variable.assign(tf.reshape(part, variable.shape))


def poison(loss, gradients):
    """Loss and gradients, all of them NaN if any gradient is not finite, else as they are.

    The sum over replicas then has a NaN in every gradient, so that `optim.SGD` applies all or none.
    """
    nothing = nan_unless_finite(gradients)
    return loss + nothing, [g + tf.cast(nothing, g.dtype) for g in gradients]


def nan_unless_finite(tensors):
    """A scalar to add to what must not pass for good: 0, or NaN if any of the tensors has one."""
    floats = [x for x in tensors if tf.as_dtype(x.dtype).is_floating]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in floats])
    return tf.where(finite, 0.0, float("nan"))


def local_rows(n):
    """Global row numbers of this replica's n rows: int32, n."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.cast(replica, tf.int32) * n + tf.range(n)


def permutation(n, seed):
    """A random permutation of 0..n-1, the same on all replicas for one seed (int, [2]): int32, n.

    A sort of uniform numbers, since it compiles for TPU where `stateless_shuffle` does not.
    """
    return tf.argsort(tf.random.stateless_uniform([n], seed, alg="philox"), stable=True)


def shuffle(x, seed):
    """Exchanges rows between replicas by one global permutation (shuffle-BN, in the step).

    Gathers the images of all replicas, so it costs their bytes: the input pipeline permutes
    without a collective where it can.

    Args:
        x: nx... rows of this replica.
        seed: int, [2], the same on all replicas.

    Returns:
        `(x, order)`: this replica's permuted rows, nx..., and the global row of each (int32, n).
    """
    n = x.shape[0]
    order = tf.gather(permutation(n * num_replicas(), seed), local_rows(n))
    return tf.gather(all_gather(x), order), order


def in_global_order(x, order):
    """Joins all replicas' rows and sorts them: row i of the result is global row i.

    Args:
        x: nx... rows of this replica, the j-th of which is global row `order[j]`.
        order: int32, n.

    Returns:
        (R*n)x..., the same on all replicas.
    """
    return tf.gather(all_gather(x), tf.math.invert_permutation(all_gather(order)))
