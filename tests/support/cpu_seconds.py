"""A pytest plugin: CPU seconds of every test and fixture, their processes included.

python -m pytest -p cpu_seconds --cpu-seconds=seconds.jsonl
python tests/support/cpu_seconds.py seconds.jsonl

The second command prints the total, the files and the tests that cost most. Seconds are user and
system time of the whole process tree, which other work on the machine changes less than the clock.
"""

import collections
import json
import os
import pathlib
import sys

import pytest

TICKS = os.sysconf("SC_CLK_TCK")


def pytest_addoption(parser):
    parser.addoption("--cpu-seconds", metavar="FILE", help="CPU seconds of tests, as JSON lines")


def tree_seconds(root):
    """User and system seconds of process `root`, of its descendants and of those that ended."""
    parents, seconds = {}, {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / TICKS
    total = 0
    for process in seconds:
        ancestor = process
        while ancestor not in (root, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor == root:
            total += seconds[process]
    return total


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    return (yield from _measured(item.config, "test", item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    name = f"{fixturedef.baseid}::{fixturedef.argname}"
    return (yield from _measured(request.config, "fixture", name))


def _measured(config, role, name):
    path = config.getoption("--cpu-seconds")
    start = tree_seconds(os.getpid()) if path else 0
    result = yield
    if path:
        seconds = tree_seconds(os.getpid()) - start
        row = {"role": role, "name": name, "seconds": round(seconds, 2)}
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
    return result


def report(path):
    """Prints the total and where it goes; a test includes the fixtures that it is first to use."""
    rows = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    tests = [row for row in rows if row["role"] == "test"]
    files = collections.Counter()
    for row in tests:
        files[row["name"].partition("::")[0]] += row["seconds"]
    print(f"{sum(files.values()):.0f} CPU seconds in {len(tests)} tests of {len(files)} files")
    for name, seconds in files.most_common():
        print(f"{seconds:8.1f}  {name}")
    for role in ("fixture", "test"):
        print(f"\nthe longest {role}s")
        chosen = [row for row in rows if row["role"] == role]
        for row in sorted(chosen, key=lambda row: -row["seconds"])[:80]:
            print(f"{row['seconds']:8.1f}  {row['name']}")


if __name__ == "__main__":
    report(sys.argv[1])
