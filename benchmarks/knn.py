"""The kNN classifier against faiss' exact index, at the size of CIFAR-10.

    pip install -e .[bench]
    python benchmarks/knn.py [--bank=50000] [--queries=10000] [--dim=128] [--rounds=5]
    python benchmarks/knn.py --bank=200000 --queries=2048 --dim=2048 --workers=moco_tf

Both find the 200 nearest of the bank's unit vectors for each query, vote with weight exp(cos / .1),
and must agree on the classes. The bank is mapped from a file, as cached features are.
"""

import argparse
import os
import sys
import tempfile
import time

import harness
import numpy as np

WORKERS = ("faiss", "moco_tf")
NEIGHBOURS, TEMPERATURE, CLASSES = 200, 0.1, 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--workers", default=";".join(WORKERS), help="some of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        bank, labels, queries = make_data(args)
        classify = {"faiss": faiss_classifier, "moco_tf": our_classifier}[args.worker]
        classify = classify(bank, labels)
        classify(queries[:2000])  # whatever is made once
        harness.serve(lambda: measure(classify, queries))
        return
    results = harness.compare(args.workers.split(";"), args.rounds, sys.argv[1:])
    sums = {name: {r["checksum"] for r in rounds} for name, rounds in results.items()}
    speed = harness.medians(results, "queries_per_second")
    memory = harness.medians(results, "peak_gb")
    peer = next(iter(speed))
    harness.report(
        f"kNN, bank {args.bank} x {args.dim}, {args.queries} queries, k = {NEIGHBOURS}",
        ("classifier", "queries/s", f"against {peer}", "peak memory, GB"),
        [(name, value, value / speed[peer], memory[name]) for name, value in speed.items()],
        same_classes=len(set.union(*sums.values())) == 1,
    )


def make_data(args):
    """Unit vectors around ten centres: float32 bank, int64 labels, float32 queries."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=args.bank + args.queries)
    centres = rng.standard_normal((CLASSES, args.dim), np.float32)

    def rows(labels):
        x = 0.3 * centres[labels] + rng.standard_normal((len(labels), args.dim), np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    with tempfile.TemporaryDirectory() as folder:  # a file may go once it is mapped
        path = os.path.join(folder, "bank.npy")
        shape = (args.bank, args.dim)
        bank = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for i in range(0, args.bank, 10_000):
            bank[i : i + 10_000] = rows(labels[: args.bank][i : i + 10_000])
        del bank
        return np.load(path, mmap_mode="r"), labels[: args.bank], rows(labels[args.bank :])


def measure(classify, queries):
    """Wall time of all queries, and a sum that tells whether the classes are the same."""
    start = time.perf_counter()
    classes = classify(queries)
    seconds = time.perf_counter() - start
    checksum = int(np.sum(classes * np.arange(1, len(classes) + 1)))
    speed = len(queries) / seconds
    return {"queries_per_second": speed, "checksum": checksum, "peak_gb": harness.peak_memory()}


def our_classifier(bank, labels):
    """The project's."""
    from moco_tf.probes import knn

    options = dict(num_classes=CLASSES, neighbours=NEIGHBOURS, temperature=TEMPERATURE)
    return lambda queries: knn.predict(bank, labels, queries, **options)


def faiss_classifier(bank, labels):
    """faiss' flat inner-product index, and the same vote in NumPy."""
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank)

    def classify(queries):
        cosine, nearest = index.search(queries, NEIGHBOURS)
        weights, votes = np.exp(cosine / TEMPERATURE), labels[nearest]
        scores = [np.sum(weights * (votes == c), axis=1) for c in range(CLASSES)]
        return np.argmax(scores, axis=0)

    return classify


if __name__ == "__main__":
    main()
