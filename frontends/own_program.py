"""What users bring as a kernel: `FILE.ttir`, or `FILE.py:NAME` with a Triton kernel or a tile program in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from treadle.frontends.ttir.errors import NotAProgram, UncompiledKernel, UnreadableIr
from treadle.frontends.ttir.program import read_program
from treadle.frontends.ttir.source import triton_ir
from treadle.frontends.ttir.text import Kernel, read_kernels
from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import UnreadableFile
from treadle.ir.tile.program import TileProgram


@dataclass(frozen=True, slots=True)
class OwnProgram:
    """A program, the file it was read from, and its Triton IR (empty for a tile program)."""

    program: TileProgram
    file: Path
    triton_ir: str = ""


def is_own(name: str) -> bool:
    """Whether a program is named by a file: `FILE.ttir`, `FILE.ttir:KERNEL`, `FILE.py:NAME`."""
    return name.partition(":")[0].endswith((".ttir", ".py"))


def read_own(name: str, shape: Mapping[str, int], arguments: Mapping[str, str]) -> OwnProgram:
    """Read a user's program.

    Args:
        name: as `is_own` takes it.
        shape: of a tile program the arguments of the function that returns it; of a Triton kernel whole numbers for its
            loop's bounds, and `trips`, `grid`, `warps`.
        arguments: of a `@triton.jit` function by name: types, and numbers of constexprs.

    Raises:
        UnreadableFile, NotAProgram, UnreadableIr, NoHotLoop, UnsupportedIr, UnknownTrips, MissingArgument,
        UncompiledKernel, MissingExtra.
    """
    path, _, inner = name.partition(":")
    file = Path(path)
    if path.endswith(".ttir"):
        text = _text(file)
        return OwnProgram(read_program(_kernel(text, path, inner), shape), file, text)
    found = _attribute(file, inner)
    if hasattr(found, "arg_names"):
        text = triton_ir(found, inner, path, arguments)
        return OwnProgram(read_program(_kernel(text, f"{path}:{inner}", inner), shape), file, text)
    made = _made(found, f"{path}:{inner}", shape) if callable(found) else found
    if not isinstance(made, TileProgram):
        raise NotAProgram(name=name, found=f"a {type(made).__name__}", place=Place(path))
    return OwnProgram(made, file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UnreadableFile(path=str(file), reason=reason) from None


def _kernel(text: str, file: str, name: str) -> Kernel:
    kernels = {kernel.name: kernel for kernel in read_kernels(text, file)}
    if not name:
        return next(iter(kernels.values()))
    if name not in kernels:
        hint = closest(name, list(kernels)) or f"its kernels are {', '.join(kernels)}"
        raise UnreadableIr(reason=f"there is no kernel `{name}`", place=Place(file), hint=hint)
    return kernels[name]


def _attribute(file: Path, name: str) -> Any:
    """Import a user's file under a name of its own and return what it calls `name`."""
    _text(file)
    spec = spec_from_file_location(f"treadle_own_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UncompiledKernel(kernel=name or file.name, reason=repr(error), place=Place(str(file))) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    if not name or not hasattr(module, name):
        names = [key for key, value in vars(module).items() if hasattr(value, "arg_names") or callable(value)]
        mine = [key for key in names if getattr(vars(module)[key], "__module__", "") == spec.name]
        hint = closest(name, mine) or f"write `{file}:NAME`; it has {', '.join(mine) or 'no functions'}"
        raise NotAProgram(name=f"{file}:{name}", found="not in the file", place=Place(str(file)), hint=hint)
    return getattr(module, name)


def _made(function: Any, name: str, shape: Mapping[str, int]) -> Any:
    try:
        return function(**shape)
    except TreadleError:
        raise
    except Exception as error:
        hint = "the function is called with what --shape gives, by name"
        raise NotAProgram(name=name, found=f"a function that fails: {error!r}", hint=hint) from error
