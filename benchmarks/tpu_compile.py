"""Compiles the step of `tpu_lower.py` for a TPU v5e, ahead of time, without a TPU.

    python benchmarks/tpu_compile.py step.mlir

Prints what one core needs of memory (HBM) and does in floating-point operations. Needs PyPI's
`jax` and `libtpu`, in an environment of their own: see the target tpu-compile of the Makefile.
"""

import dataclasses
import json
import os
import re
import sys
import time

# Both before jax is imported: libtpu must not look for a TPU, and jax must not start one.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax import export
from jax._src.interpreters import mlir
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

TOPOLOGY = "v5e:2x2"
DTYPES = {"ui8": "uint8", "i1": "bool", "i32": "int32", "i64": "int64", "f32": "float32"}
DTYPES |= {"bf16": "bfloat16"}


def main():
    if len(sys.argv) != 2:
        sys.exit("Usage: python benchmarks/tpu_compile.py FILE, made by tpu_lower.py.")
    jax.config.update("jax_enable_x64", True)
    with open(sys.argv[1]) as file:
        text = file.read()
    start = time.time()
    compiled = compile_for_tpu(text)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    facts = {
        "topology": TOPOLOGY,
        "compile_seconds": round(time.time() - start),
        "hbm_gb": (held + memory.temp_size_in_bytes) / 1e9,
        "hbm_variables_and_batch_gb": memory.argument_size_in_bytes / 1e9,
        "hbm_temporary_gb": memory.temp_size_in_bytes / 1e9,
        "program_mb": memory.generated_code_size_in_bytes / 1e6,
        "gflop": cost["flops"] / 1e9,
        "gb_accessed": cost["bytes accessed"] / 1e9,
    }
    print(json.dumps(facts, indent=2))


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
    device = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices[0]
    place = SingleDeviceSharding(device)
    compiled = jax.jit(
        exported.call, in_shardings=place, out_shardings=place, donate_argnums=tuple(aliased)
    )
    return compiled.lower(*arguments).compile()


def _signature(function):
    kind = ir.FunctionType(function.type)
    return kind.inputs, kind.results


def _shape(tensor):
    tensor = ir.RankedTensorType(tensor)
    return jax.ShapeDtypeStruct(tensor.shape, DTYPES[str(tensor.element_type)])


if __name__ == "__main__":
    main()
