"""Lowers the programs of `tpu_programs.py` to StableHLO, for `tpu_compile.py`.

    python benchmarks/tpu_lower.py FOLDER [--programs=fit_step,fcn_predict]

Writes FOLDER/NAME.mlir. Needs TensorFlow, and no TPU.
"""

import argparse
import pathlib

import keras
import parts
import tpu_programs


def main():
    programs = tpu_programs.programs()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--programs", help=f"names with commas; all: {', '.join(programs)}")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.programs.split(",") if args.programs else programs:
        path = args.folder / f"{name}.mlir"
        path.write_text(lower(*programs[name]()))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB of StableHLO", flush=True)
        keras.backend.clear_session()


def lower(function, specs):
    """StableHLO text of a graph function, whose variables are arguments after those of `specs`."""
    compiled = parts.compiled(function, jit_compile=True)
    return compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo")


if __name__ == "__main__":
    main()
