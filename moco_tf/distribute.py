"""Hosts and replicas: the only file that knows there is more than one device.

Everything else calls these functions, which do the right thing for one replica as
for many. Rows of the global batch are numbered 0..B-1; a replica holds B/R of them.
"""

import functools
import math

import numpy as np
import tensorflow as tf
from tqdm import tqdm


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


def num_replicas(strategy=None):
    """R, the number of replicas that train in step; by default those of the current strategy."""
    return (strategy or tf.distribute.get_strategy()).num_replicas_in_sync


def on_tpu(strategy):
    """Whether the replicas are a TPU's."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def batches(strategy, dataset, start):
    """Iterator over distributed batches from a step on.

    Args:
        strategy: strategy of the model.
        dataset: function of a host's number and the first step to a `tf.data.Dataset` of batches
            for each of its replicas in turn.
        start: first step.
    """
    return iter(
        strategy.distribute_datasets_from_function(
            lambda context: dataset(context.input_pipeline_id, start)
        )
    )


def join_rows(strategy, x):
    """The rows that each replica of this process has, one after the other."""
    return tf.concat(strategy.experimental_local_results(x), axis=0)


def run(strategy, step, batch):
    """Runs a step on each replica.

    Args:
        strategy: strategy of the model.
        step: function of a replica's batch that returns a dict of scalars.
        batch: distributed batch, one element of an iterator of `batches`.

    Returns:
        The dict, each scalar a mean over this process' replicas.
    """
    logs = strategy.run(step, (batch,))
    local = {name: strategy.experimental_local_results(x) for name, x in logs.items()}
    return {name: tf.reduce_mean(tf.stack(values)) for name, values in local.items()}


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


def make_take_first(strategy, variables):
    """Makes a function that gives all replicas the first one's values of variables.

    A checkpoint holds the first replica's BN statistics. The others have those of their own rows,
    which training does not read.

    Args:
        strategy: strategy of the variables.
        variables: variables of which the float32 ones are set.
    """

    @tf.function(autograph=False)
    def take_first():
        strategy.run(lambda: _exchange(variables, first))

    return take_first


def make_predict_all(strategy, predict):
    """Makes a function that predicts a whole test set on all replicas, compiled once.

    Args:
        strategy: of the network's variables.
        predict: function from one replica's batch to a dict of tensors with one row an example.

    Returns:
        Generator function `predict_all(dataset, num_examples, batch_size, title=None)`:
            dataset: function `(batch_size, rows)` to a `tf.data.Dataset` of these rows (a slice)
                of each global batch of the test set in order; the last batch is filled up.
            num_examples: of the test set.
            batch_size: rows over all replicas, rounded up to a multiple of them.
            title: of a progress bar; None for none.
        It yields `(first, outputs)`: a dict of arrays with the rows first, first + 1, ... of the
        test set, the same on every process.
    """

    def replica(batch):
        return {name: all_gather(x) for name, x in predict(batch).items()}

    @tf.function(autograph=False)
    def run(iterator):
        outputs = strategy.run(replica, (next(iterator),))
        return {n: strategy.experimental_local_results(x)[0] for n, x in outputs.items()}

    return _make_predict(strategy, run, workers=1)


def make_predict_own(strategy, predict):
    """As `make_predict_all`, but each process predicts images of its own, without the others.

    The dataset, the number of examples and the batch are those of this process, and so is what it
    yields. Processes need not make as many steps.
    """

    @tf.function(autograph=False)
    def run(iterator):
        outputs = strategy.run(predict, (next(iterator),))
        return {name: join_rows(strategy, x) for name, x in outputs.items()}

    return _make_predict(strategy, run, workers=num_workers(strategy))


def _make_predict(strategy, run, workers):
    """The generator of `make_predict_all` for a step; `workers` processes work by themselves."""
    replicas = num_replicas(strategy) // workers

    @functools.cache
    def distributed(dataset, per_replica):
        batch_size = per_replica * replicas

        def host_dataset(context):
            pipelines = context.num_input_pipelines // workers
            rows = batch_size // pipelines
            first = context.input_pipeline_id % pipelines * rows
            data = dataset(batch_size, slice(first, first + rows))
            if rows > per_replica:
                data = data.unbatch().batch(per_replica, drop_remainder=True)
            return data.repeat()  # without end it keeps its static shapes when it is distributed

        return strategy.distribute_datasets_from_function(host_dataset)

    def predict_all(dataset, num_examples, batch_size, title=None):
        per_replica = -(-batch_size // replicas)
        batch_size = per_replica * replicas
        iterator = iter(distributed(dataset, per_replica))
        starts = range(0, num_examples, batch_size)
        for first in tqdm(starts, title, unit="batch", disable=title is None):
            outputs = run(iterator)
            yield first, {n: x.numpy()[: num_examples - first] for n, x in outputs.items()}

    return predict_all


# Inside `strategy.run`, in replica context ------------------------------------------------------


def all_gather(x):
    """Joins all replicas' rows: nx... on each replica to (R*n)x... on all, in replica order."""
    if num_replicas() == 1:
        return x
    context = tf.distribute.get_replica_context()
    dtype = x.dtype
    # It takes no others. A cast or the identity gives multi-worker a tensor of its own.
    wider = {tf.bool: tf.int32, tf.uint8: tf.int32, tf.bfloat16: tf.float32}
    x = tf.cast(x, wider[dtype]) if dtype in wider else tf.identity(x)
    gathered = tf.cast(context.all_gather(x, axis=0), dtype)
    # The gather loses the static shape.
    return tf.ensure_shape(gathered, [num_replicas() * x.shape[0], *x.shape[1:]])


def mean(x):
    """The mean over replicas of a tensor that each has of its own, with a gradient."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce("MEAN", x)


def first(x):
    """The first replica's value of a tensor that each has of its own."""
    if num_replicas() == 1:
        return x
    context = tf.distribute.get_replica_context()
    is_first = tf.equal(context.replica_id_in_sync_group, 0)
    return context.all_reduce("SUM", tf.where(is_first, x, tf.zeros_like(x)))


def average(variables):
    """Sets the float32 ones of variables to their means over replicas, in one collective."""
    _exchange(variables, mean)


def _exchange(variables, combine):
    """Sets the float32 ones of variables to `combine` of all of them in a row."""
    variables = [v for v in variables if v.dtype == "float32"]
    if num_replicas() == 1 or not variables:
        return
    flat = tf.concat([tf.reshape(v.value, [-1]) for v in variables], axis=0)
    parts = tf.split(combine(flat), [math.prod(v.shape) for v in variables])
    for variable, part in zip(variables, parts, strict=True):
        variable.assign(tf.reshape(part, variable.shape))


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
