"""What users bring as a kernel: `FILE.ttir`, or `FILE.py:NAME` with a Triton kernel or a tile program in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.frontends import programs
from treadle.frontends.ttir.errors import UncompiledKernel, UnreadableIr
from treadle.frontends.ttir.program import read_program, which_loop
from treadle.frontends.ttir.text import Kernel, read_kernels
from treadle.frontends.ttir.worker import ERRORS
from treadle.ir.codec import decode, file_locator
from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import InvalidValue, UnreadableFile
from treadle.ir.tile.program import OperationKind, TileOperation, TileProgram


@dataclass(frozen=True, slots=True)
class OwnProgram:
    """A program and its file; its Triton IR (empty for a tile program), and which of several loops it is."""

    program: TileProgram
    file: Path
    triton_ir: str = ""
    loop: str = ""


def is_own(name: str) -> bool:
    """Whether a program is named by a file: `FILE.ttir`, `FILE.ttir:KERNEL`, `FILE.py:NAME`."""
    return name.partition(":")[0].endswith((".ttir", ".py"))


def read_own(name: str, shape: Mapping[str, int], arguments: Mapping[str, str]) -> OwnProgram:
    """Read a user's program.

    Args:
        name: as `is_own` takes it.
        shape: of a tile program the arguments of the function that returns it; of a Triton kernel whole numbers for its
            loop's bounds, and `trips`, `grid`, `warps`.
        arguments: of a `@triton.jit` function by name: types, and values of constexprs.

    Raises:
        UnreadableFile, NotAProgram, InvalidValue, ZeroDistanceCycle, UnreadableIr, NoHotLoop, UnsupportedIr,
        UnknownTrips, UnknownShapeKey, InvalidExtent, MissingArgument, UncompiledKernel, MissingExtra.
    """
    path, _, inner = name.partition(":")
    file = Path(path)
    if path.endswith(".ttir"):
        text = _text(file)
        return _of_kernel(_kernel(text, path, inner), shape, file, text)
    _text(file)
    answer = _asked({"file": path, "name": inner, "shape": dict(shape), "arguments": dict(arguments)})
    if "triton_ir" in answer:
        text = str(answer["triton_ir"])
        return _of_kernel(_kernel(text, f"{path}:{inner}", inner), shape, file, text)
    program = decode(TileProgram, answer["program"], file_locator(path))
    _check(program, Place(path))
    return OwnProgram(program, file)


def _check(program: TileProgram, place: Place) -> None:
    """Refuse products of tiles that are too small, and a family that the library describes otherwise.

    Raises:
        InvalidValue: with the file as place.
    """
    for part in (program, *program.siblings):
        for operation in part.operations:
            if operation.kind is OperationKind.MMA:
                _check_product(part, operation, place)
    if program.family in programs.FAMILIES and not _of_library(program):
        message = f"`{program.name}` is not what the library's family `{program.family}` gives at this shape"
        raise InvalidValue(message=message, place=place, hint="give the program a family of its own")


def _check_product(program: TileProgram, operation: TileOperation, place: Place) -> None:
    """Both operands hold what is read of them: `depth` numbers for every row, and for every column, of the result."""
    for operand, extent in zip(operation.operands, operation.result.shape, strict=False):
        tile = program.tile_of(operand.value)
        if tile.elements < extent * operation.depth:
            raise InvalidValue(
                message=f"product `{operation.name}` of program `{program.name}` reads {extent} x {operation.depth} "
                f"numbers of `{operand.value}`, which has {' x '.join(map(str, tile.shape))}",
                place=place,
            )


def _of_library(program: TileProgram) -> bool:
    try:
        return programs.build(program.family, program.shape, program.tile_sizes, program.options) == program
    except TreadleError:
        return False


def _of_kernel(kernel: Kernel, shape: Mapping[str, int], file: Path, text: str) -> OwnProgram:
    return OwnProgram(read_program(kernel, shape), file, text, which_loop(kernel))


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    """Import the user's file in a process of its own: neither its code nor its Triton stays in this one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "treadle.frontends.ttir.worker"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    place = Place(request["file"])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UncompiledKernel(kernel=request["name"], reason=last, place=place)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        if answer["line"]:
            place = Place(request["file"], answer["line"])
        raise ERRORS[answer["error"]](place=place, hint=answer["hint"], **answer["fields"])
    return answer


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
