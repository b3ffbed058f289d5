"""Writes docs/speed.md, the tables of benchmarks/all.py on every machine it ran on.

    python tools/speed.py

Figures are in docs/speed/MACHINE.json as the benchmarks printed them; texts are here.
"""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "speed.md"
DATA = ROOT / "docs" / "speed"

INTRODUCTION = """# Speed and memory

`python benchmarks/all.py --name=NAME --images=DIR --classes=DIR --cifar10=DIR` measures every table
of this page on your machine and writes docs/speed/NAME.json; `python tools/speed.py` makes this
page from these files. A table's own command stands under it. Workers run in turn, and figures are
medians over the rounds: trust the ratios rather than the figures, and no figure of a busy machine.

oneDNN is TensorFlow's library of fast CPU ops. TensorFlow switches it on by itself only on CPUs
with AVX512_VNNI or newer; `import moco_tf`, all commands and all benchmarks switch it on on every
x86 CPU unless you set `TF_ENABLE_ONEDNN_OPTS`. Each table says what it was measured with.
"""

SECTIONS = {  # title and text of each table of benchmarks/all.py
    "input": (
        "Input",
        "Two MoCo v2 views (224 px) of each JPEG, per core. `host` is the whole pipeline, `device` "
        "the host's share when colors and blur run on the accelerator, `decode` the limit.",
    ),
    "step_resnet50": (
        "Training step, ResNet-50",
        "Both encoders, loss, accuracy, queue and optimizer, on batches that are already there; "
        "the peer is the official code's step in PyTorch. Memory is above the library's own.",
    ),
    "step_resnet18_cifar": ("Training step, ResNet-18 of the CIFAR-10 demo", "The same."),
    "bn_groups": (
        "BN groups on one device",
        "The ResNet-50 step of 64 rows of 112 px, in one BN group and, as `moco_tf`, in eight.",
    ),
    "knn": ("kNN classifier", "Against the exact index of faiss, with the same classes."),
    "detection": ("Detection", "Mask R-CNN on one image; no peer."),
    "memory": (
        "Memory of every command",
        "Largest resident size of the process of each command around a run of ResNet-50, over 153 "
        "photos of flowers and 51 to test.",
    ),
    "scaling": (
        "Scaling",
        "Bytes that a ResNet-50 replica of 32 rows gives to the collectives of a step, read off "
        "the graph for 1 to 8 replicas and by the same formula beyond.",
    ),
    "peers": (
        "Whole runs beside lightly",
        "`train.py` and lightly's MoCo v2 on the same images, views, network, batch, queue and "
        "schedule. `images/s` counts the steps after the first eight, input included; `in all` is "
        "images per second from the start of the process to its end. kNN is the same for both "
        "encoders; `lowest` and `highest` are of the seeds.",
    ),
}


def document() -> str:
    """The page, from the files of all machines."""
    machines = [json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))]
    parts = [INTRODUCTION]
    for name, (title, text) in SECTIONS.items():
        tables = [machine[name] for machine in machines if name in machine]
        if tables:
            parts.append(f"## {title}\n\n{text}\n")
            parts += [_table(table) for table in tables]
    return "\n".join(parts)


def _table(table):
    rows = table["rows"]
    lines = [f"{table['title']}. {table['machine']}.", ""]
    if table.get("note"):
        lines[:1] = [lines[0], "", table["note"]]
    lines.append("| " + " | ".join(rows[0]) + " |")
    lines.append("|" + "---|" * len(rows[0]))
    lines += ["| " + " | ".join(_text(value) for value in row.values()) + " |" for row in rows]
    return "\n".join([*lines, "", f"`python benchmarks/{table['command']}`", ""])


def _text(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
