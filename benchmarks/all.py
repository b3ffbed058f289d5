"""Runs the benchmarks whose tables are in docs/speed.md, in one go, and writes their results.

    pip install -e .[bench]
    python benchmarks/all.py --name=NAME [--images=DIR] [--classes=DIR] [--cifar10=DIR]
        [--only=step_resnet50,...]
    python tools/speed.py

NAME is a short name of the machine: results go to docs/speed/NAME.json, a table at a time, so what
was measured stays if a later one fails. tools/speed.py makes the page from all machines' files.
`--images` is a folder of photos, `--classes` one of labelled photos in train and test, `--cifar10`
one of CIFAR-10's binary version; tables that need one are left out without it. Two cores that do
nothing else take about half an hour, and 12 minutes more with `--cifar10`, whose table needs
lightly, see benchmarks/peers.py.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent
RESULTS = FOLDER.parent / "docs" / "speed"
TABLES = {  # the command of each table; {images}, {classes} and {cifar10} are flags
    "input": ["pipeline.py", "--images={images}", "--long_side=500"],
    "step_resnet50": ["step.py", "--workload=resnet50", "--rounds=3"],
    "step_resnet18_cifar": ["step.py", "--workload=resnet18_cifar", "--rounds=3"],
    "bn_groups": [
        "step.py",
        "--workload=bn_groups",
        "--workers=moco_tf in one group;moco_tf",
        "--steps=1",
    ],
    "knn": ["knn.py"],
    "detection": ["detection.py"],
    "memory": ["memory.py", "--images={classes}"],
    "scaling": ["scaling.py"],
    "peers": ["peers.py", "--data={cifar10}"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="short name of the machine, for the file")
    parser.add_argument("--images", help="folder of JPEGs, for the input's table")
    parser.add_argument("--classes", help="labelled folder with train and test, for memory's table")
    parser.add_argument(
        "--cifar10", help="folder of CIFAR-10's binary version, for the peers' table"
    )
    parser.add_argument("--note", help="a sentence under each table, such as what ran beside it")
    parser.add_argument("--only", default=",".join(TABLES), help="some of the tables")
    args = parser.parse_args()
    flags = {"images": args.images, "classes": args.classes, "cifar10": args.cifar10}
    path = RESULTS / f"{args.name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    failed = []
    for name in args.only.split(","):
        missing = [
            flag for flag in flags if not flags[flag] and f"{{{flag}}}" in "".join(TABLES[name])
        ]
        if missing:
            print(f"{name}: left out, it needs --{missing[0]}", file=sys.stderr)
            continue
        table = measure(TABLES[name], flags)
        if table is None:
            failed.append(name)
            continue
        results[name] = {**table, "note": args.note} if args.note else table
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    if failed:
        sys.exit(f"Failed, see above: {', '.join(failed)}.")


def measure(command, flags):
    """The last line of a benchmark's output, and its command; None if it failed."""
    start = time.time()
    script, *options = command
    process = subprocess.run(
        [sys.executable, FOLDER / script, *(option.format(**flags) for option in options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    print(process.stdout)
    if process.returncode:
        return None
    table = json.loads(process.stdout.strip().splitlines()[-1])
    shown = shlex.join(word.format(**dict.fromkeys(flags, "DIR")) for word in command)
    return {"command": shown, "seconds": round(time.time() - start), **table}


if __name__ == "__main__":
    main()
