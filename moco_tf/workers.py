"""Processes that run one program side by side: which one this is, and what the chief does first."""

from moco_tf import distribute


def worker_number(strategy):
    """Number of this process among those that run this program side by side."""
    if distribute.num_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_id + (has_chief and resolver.task_type != "chief")


def wait_for_workers(strategy):
    """Returns when all processes have called it."""
    distribute.mean_over_workers(strategy, [0.0])


def chief_first(strategy, call):
    """Calls a function on the chief, and then on the others, which find what it left on disk.

    Args:
        strategy: strategy of the processes.
        call: function without arguments.

    Returns:
        The result of `call`.
    """
    if not distribute.is_chief(strategy):
        wait_for_workers(strategy)
        return call()
    try:
        return call()
    finally:  # after an error, too: the others meet it themselves
        wait_for_workers(strategy)
