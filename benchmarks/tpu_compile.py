"""Compiles the programs of `tpu_lower.py` for a TPU v5e, ahead of time, without a TPU.

    python benchmarks/tpu_compile.py FOLDER [--collectives]

Prints a line of JSON for each FOLDER/NAME.mlir: what one core needs of memory (HBM) and does in
floating-point operations, or the error. With --collectives also the collectives that a slice of
four cores runs. Needs PyPI's `jax` and `libtpu`, in an environment of their own: see the target
tpu-compile of the Makefile.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import re
import sys
import time

# All before jax is imported: libtpu must not look for a TPU nor keep one for this process, and jax
# must not start one.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax._src.interpreters import mlir
from jax.experimental import topologies
from jax.sharding import NamedSharding, SingleDeviceSharding
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

TOPOLOGY = "v5e:2x2"
DTYPES = {"ui8": "uint8", "i1": "bool", "i32": "int32", "i64": "int64", "f32": "float32"}
DTYPES |= {"bf16": "bfloat16"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--collectives", action="store_true")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    compilers = {
        path.stem: functools.partial(compile_for_tpu, path.read_text())
        for path in sorted(args.folder.glob("*.mlir"))
    }
    if args.collectives:
        compilers |= collectives()
    failed = 0
    for name, compiler in compilers.items():
        start = time.time()
        try:
            facts = facts_of(compiler())
        except Exception as error:  # what one program lacks says nothing of the others
            facts = {"error": f"{type(error).__name__}: {error}"}
            failed += 1
        row = {"program": name, "topology": TOPOLOGY, "compile_seconds": round(time.time() - start)}
        print(json.dumps(row | facts), flush=True)
    sys.exit(1 if failed else 0)


def facts_of(compiled):
    """Dict of what a core needs and does, of a compiled `jax.stages.Compiled`."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "hbm_gb": (held + memory.temp_size_in_bytes) / 1e9,
        "hbm_variables_and_batch_gb": memory.argument_size_in_bytes / 1e9,
        "hbm_temporary_gb": memory.temp_size_in_bytes / 1e9,
        "program_mb": memory.generated_code_size_in_bytes / 1e6,
        "gflop": cost.get("flops", 0) / 1e9,
        "gb_accessed": cost.get("bytes accessed", 0) / 1e9,
    }


def compile_for_tpu(text):
    """A compiled `jax.stages.Compiled` of StableHLO text, its variables updated in place."""
    aliased = {int(number) for number in re.findall(r"parameter_number = (\d+)", text)}
    # TensorFlow writes one op, and module attributes, of a dialect that jax does not load.
    text = re.sub(r"^module @\S+ attributes \{.*\} \{$", "module @step {", text, flags=re.M)
    copy = r"mhlo\.copy (%\S+) (?:\{[^}]*\} )?: (tensor<[^>]*>)"
    text = re.sub(copy, r"stablehlo.reshape \1 : (\2) -> \2", text)

    context = mlir.make_ir_context()
    with context, ir.Location.unknown(context):
        module = ir.Module.parse(text)
        (step,) = [op for op in module.body.operations if op.name.value == "main"]
        arguments, results = ([_shape(t) for t in types] for types in _signature(step))
        version = stablehlo.get_minimum_version()
        serialized = stablehlo.serialize_portable_artifact_str(str(module), version)

    # An exported function of the same signature, with the module put in its place.
    def blank(*_):
        return [jax.numpy.zeros(r.shape, r.dtype) for r in results]

    blank = jax.jit(blank, keep_unused=True)
    exported = export.export(blank, platforms=["tpu"])(*arguments)
    exported = dataclasses.replace(exported, mlir_module_serialized=serialized)
    place = SingleDeviceSharding(devices()[0])
    compiled = jax.jit(
        exported.call, in_shardings=place, out_shardings=place, donate_argnums=tuple(aliased)
    )
    return compiled.lower(*arguments).compile()


@functools.cache
def devices():
    """The cores of the slice."""
    return topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices


def collectives():
    """Compilers of the gathers that `TPUStrategy` makes of `distribute.all_gather`, by name.

    They are written in JAX: TensorFlow has its own collectives on TPUs only, and cannot lower them
    elsewhere. It sums what each core puts in its place, and exchanges types that it cannot sum;
    `all_gather` widens bool and uint8 before.
    """
    mesh = jax.sharding.Mesh(np.array(devices()), ("replicas",))
    rows = jax.sharding.PartitionSpec("replicas")
    count = len(devices())

    def summed(x):
        wide = x if x.dtype == jnp.float32 else x.astype(jnp.int32)
        own = jnp.arange(count) == jax.lax.axis_index("replicas")
        placed = jnp.where(own[:, None], wide, jnp.zeros_like(wide))
        return jax.lax.psum(placed, "replicas").reshape(-1).astype(x.dtype)

    def exchanged(x):
        copies = jnp.tile(x, (count, 1))
        return jax.lax.all_to_all(copies, "replicas", 0, 0).reshape(-1)

    gathers = {"float32": summed, "int32": summed, "bool": summed, "uint8": summed}
    gathers["int64"] = exchanged

    def compiler(gather, dtype):
        whole = jax.ShapeDtypeStruct([8 * count], dtype, sharding=NamedSharding(mesh, rows))
        run = jax.shard_map(gather, mesh=mesh, in_specs=rows, out_specs=rows)
        return jax.jit(run).lower(whole).compile()

    return {
        f"all_gather_{dtype}": functools.partial(compiler, gather, dtype)
        for dtype, gather in gathers.items()
    }


def _signature(function):
    kind = ir.FunctionType(function.type)
    return kind.inputs, kind.results


def _shape(tensor):
    tensor = ir.RankedTensorType(tensor)
    return jax.ShapeDtypeStruct(tensor.shape, DTYPES[str(tensor.element_type)])


if __name__ == "__main__":
    main()
