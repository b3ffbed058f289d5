"""What one step exchanges between replicas, read off its graph."""

import collections


def count(graph, replicas):
    """Counts the collectives of a step traced under `MultiWorkerMirroredStrategy`.

    Args:
        graph: of the concrete function that runs the step on all replicas.
        replicas: their number.

    Returns:
        Dict from (kind of op, dtype, bytes given by a replica) to how often each replica does it.

    Raises:
        ValueError: for a collective in a loop, or one that not all replicas do.
    """
    nested = [node.op for f in graph.as_graph_def().library.function for node in f.node_def]
    if any("Collective" in op for op in nested):
        raise ValueError("A collective within a loop or a function is counted once only.")
    counts, shapes = collections.Counter(), 0
    for op in graph.get_operations():
        if not op.type.startswith("Collective"):
            continue
        x = op.inputs[0]
        if "Gather" in op.type and x.op.type != "Pad":
            shapes += 1  # all_gather first exchanges the shapes, to pad to the largest
            continue
        if x.op.type == "Pad":
            x = x.op.inputs[0]
        counts[op.type, x.dtype.name, x.dtype.size * x.shape.num_elements()] += 1
    gathers = sum(n for (kind, *_), n in counts.items() if "Gather" in kind)
    if shapes != gathers or any(n % replicas for n in counts.values()):
        raise ValueError(f"Each replica must take part in each collective. Received: {counts}.")
    return {key: n // replicas for key, n in counts.items()}
