"""Compiles emitted modules with the Triton of the interpreter that runs it; a script of its own, in its own process.

Triton's compiler can abort the process it runs in, and its interpreter mode is fixed when it is imported; so
`treadle.codegen.triton.compile` talks to this script through files. It needs only the standard library and triton
(no torch, no GPU), and may be run by another Python than treadle's.

Usage: worker.py JOBS.json. The file holds {"target": [backend, architecture, warp size], "sources": [path, ...],
"folder": path}. Binaries go into the folder; standard output gets one JSON document per source.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

SUFFIXES = {"cuda": "cubin", "hip": "hsaco"}


def specialize(names: list[str], entry: dict[str, Any]) -> tuple[dict[str, str], dict[tuple[int, ...], Any], Any]:
    """Return (signature, constants, attributes) as Triton's own launcher would choose them for the planned values.

    Pointers are taken to be 16-byte aligned, whole numbers by value: 1 is a constant, multiples of 16 are marked.
    """
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for position, name in enumerate(names):
        value = entry["arguments"].get(name)
        if name in entry["constants"] or value == 1:
            signature[name] = "constexpr"
            constants[position,] = entry["constants"].get(name, value)
        elif isinstance(value, str):
            signature[name] = value
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
        if str(value).startswith("*") or (isinstance(value, int) and value != 1 and value % 16 == 0):
            attributes[position,] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def source_of(function: Any) -> Any:
    """Return the compiler's class of sources for a kernel function: Gluon's where it is written in Gluon."""
    from triton.compiler import ASTSource

    if not function.is_gluon():
        return ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    return GluonASTSource


def compile_source(path: Path, target: tuple[str, str | int, int], folder: Path) -> list[dict[str, Any]]:
    """Compile every kernel of one emitted module; returns what became of each."""
    import triton
    from triton.backends.compiler import GPUTarget

    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    answers: list[dict[str, Any]] = []
    for name, entry in module.KERNELS.items():
        function = getattr(module, name)
        signature, constants, attributes = specialize(function.arg_names, entry)
        source = source_of(function)(function, signature, constants, attributes)
        options = {"num_warps": entry["num_warps"], "enable_fp_fusion": True, **entry.get("options", {})}
        compiled = triton.compile(source, target=GPUTarget(*target), options=options)
        suffix = SUFFIXES[target[0]]
        binary = folder / f"{path.stem}.{name}.{suffix}"
        binary.write_bytes(compiled.asm[suffix])
        answers.append(
            {
                "kernel": name,
                "symbol": compiled.metadata.name,
                "binary": str(binary),
                "smem_bytes": compiled.metadata.shared,
                "warps": compiled.metadata.num_warps,
                "signature": signature,
                "constants": {function.arg_names[position]: value for (position,), value in constants.items()},
            }
        )
    return answers


def complaint(error: BaseException) -> str:
    """Return what went wrong first: Triton wraps an error once for every function it was called from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def main(jobs: Path) -> int:
    """Compile the modules that a job file names."""
    import triton

    job = json.loads(jobs.read_text(encoding="utf-8"))
    for path in job["sources"]:
        answer: dict[str, Any] = {"source": path, "version": triton.__version__}
        try:
            answer["kernels"] = compile_source(Path(path), tuple(job["target"]), Path(job["folder"]))
        except Exception as error:  # whatever the compiler raises is the answer; the parent gives it a code
            answer["error"] = complaint(error)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
