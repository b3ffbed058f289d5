"""Workers measured in turn (A B A B ...), so that a noisy machine is as noisy for each.

A benchmark script starts itself once for each worker, a process of its own. A worker sets up, says
so, and measures once for every line that it is sent.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

# Instructions that decide how fast convolutions and integer products are.
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# As `import moco_tf` sets it, for workers that import TensorFlow first.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def serve(measure):
    """In a worker: answers each line on stdin by `measure()`, a dict, as a line of JSON."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def compare(names, rounds, arguments=()):
    """In the parent: runs this script as `--worker=NAME` for each name, `rounds` times in turn.

    Returns:
        Dict from name to the list of its measurements; a worker that cannot start is left out, and
        said.
    """
    workers, results = {}, {}
    for name in names:
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 the worker keeps it
        workers[name] = subprocess.Popen(
            [sys.executable, sys.argv[0], f"--worker={name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCHMARK_DEBUG") else errors,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        workers[name].errors = errors
        if _answer(workers[name]) is None:
            print(f"{name}: left out. {_last_line(workers.pop(name))}", file=sys.stderr)
    if not workers:
        sys.exit("No worker could start: see above. BENCHMARK_DEBUG=1 shows all that they say.")
    try:
        for i in range(rounds):
            for name, worker in workers.items():
                worker.stdin.write("measure\n")
                worker.stdin.flush()
                measured = _answer(worker)
                if measured is None:
                    raise RuntimeError(f"The worker {name} ended: {_last_line(worker)}")
                results.setdefault(name, []).append(measured)
                print(f"round {i + 1}/{rounds} {name}: {measured}", file=sys.stderr)
    finally:
        for worker in workers.values():
            worker.kill()
    return results


def _answer(worker):
    """The worker's next line of JSON; None when it ended. Other output is passed over."""
    for line in worker.stdout:
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue
    return None


def _last_line(worker):
    worker.kill()
    worker.errors.seek(0)
    lines = worker.errors.read().strip().splitlines()
    return lines[-1] if lines else ""


def medians(results, key):
    """Dict from name to the median over the rounds of the measured value `key`."""
    return {name: statistics.median(r[key] for r in rounds) for name, rounds in results.items()}


def machine():
    """What the figures were measured on, in a line: cores, CPU and its flags, oneDNN, date."""
    processor, flags = platform.processor() or platform.machine(), []
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        lines = {name.strip(): value.strip() for name, value in lines.items()}
        processor = lines.get("model name", processor)
        present = lines.get("flags", "").split()
        flags = [name for name in FLAGS if name in present]
    onednn = {"1": "on", "0": "off"}.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS"), "as shipped")
    cpu = f"{processor} ({' '.join(flags) or 'no vector flags known'})"
    return f"{os.cpu_count()} cores, {cpu}, oneDNN {onednn}, {time.strftime('%Y-%m-%d')}"


def report(title, columns, rows, **facts):
    """Prints a Markdown table, and everything as JSON after it."""
    print(f"\n{title} ({machine()})\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row) + " |")
    facts |= {"machine": machine(), "rows": [dict(zip(columns, row)) for row in rows]}
    print("\n" + json.dumps({"title": title, **facts}))


def peak_memory():
    """Largest resident size of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
