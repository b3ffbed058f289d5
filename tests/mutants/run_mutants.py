"""Runs the quick tests against the package with one line changed at a time: which are noticed?

python tests/mutants/run_mutants.py [--only=WORD] [--workers=2] [--project=DIR]

Each mutant of mutants.toml is a copy of the project with `old` replaced by `new` in `file`, and the
`tests` that have to fail on it. Prints a table; exits with 1 if a mutant survives. --project takes
the files and tests from another checkout, where mutants whose line it does not have are left out.
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 900


def copied(project, folder):
    """A copy of the tracked files of a project, with the shared data beside it."""
    copy = folder / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=project, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (project / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, copy / name)
    if (project.parent / "shared").exists():
        (folder / "shared").symlink_to((project.parent / "shared").resolve())
    return copy


def outcome(mutant, copy):
    """What the tests say of a mutant: caught, survived, or why it could not be tried."""
    path = copy / mutant["file"]
    text = path.read_text() if path.exists() else ""
    if text.count(mutant["old"]) != 1:
        return f"not tried: its line stands {text.count(mutant['old'])} times in the file"
    path.write_text(text.replace(mutant["old"], mutant["new"]))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *mutant["tests"]],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return "caught: the tests hang"
    finally:
        path.write_text(text)
    if done.returncode == 0:
        return "SURVIVED"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == 1 and failed:
        return f"caught: {failed[0].split(' - ')[0].split('::', 1)[1]}"
    return f"not tried: pytest ended with {done.returncode}: {done.stdout[-300:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a word in the file or the description")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--project", type=pathlib.Path, default=ROOT)
    options = parser.parse_args()
    mutants = tomllib.loads((pathlib.Path(__file__).parent / "mutants.toml").read_text())["mutant"]
    mutants = [m for m in mutants if options.only in m["file"] + " " + m["what"]]
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        copies = queue.Queue()
        for worker in range(options.workers):
            place = pathlib.Path(folder) / str(worker)
            place.mkdir()
            copies.put(copied(options.project.resolve(), place))

        def try_one(mutant):
            copy = copies.get()
            try:
                result = outcome(mutant, copy)
            finally:
                copies.put(copy)
            print(f"| {mutant['file']} | {mutant['what']} | {result} |", flush=True)
            return result

        print("| file | change | tests |\n|---|---|---|")
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            results = list(pool.map(try_one, mutants))
    caught = sum(result.startswith("caught") for result in results)
    print(f"\n{caught} of {len(mutants)} caught in {(time.time() - start) / 60:.0f} minutes")
    return int(caught < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
