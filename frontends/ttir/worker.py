"""Imports a user's file, in a process of its own, and prints the Triton IR or the tile program it holds.

`python -m treadle.frontends.ttir.worker` reads one JSON object (file, name, shape, arguments) and prints one:
`triton_ir`, `program`, or `error` with the fields of a coded error.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from treadle.frontends.ttir.errors import MissingArgument, NotAProgram, UncompiledKernel
from treadle.frontends.ttir.source import triton_ir
from treadle.ir.codec import encode
from treadle.ir.diagnostics import TreadleError, closest
from treadle.ir.errors import InvalidValue, MissingExtra
from treadle.ir.tile.loop import ZeroDistanceCycle
from treadle.ir.tile.program import TileProgram

INVALID: tuple[type[TreadleError], ...] = (InvalidValue, ZeroDistanceCycle)
"""What a tile program of the user's says of itself when it breaks a rule of its type."""
_READING: tuple[type[TreadleError], ...] = (MissingArgument, MissingExtra, NotAProgram, UncompiledKernel)
ERRORS: dict[str, type[TreadleError]] = {kind.__name__: kind for kind in (*_READING, *INVALID)}
"""Errors that cross the process boundary, by class name."""
IMPORTED = "treadle imports the file: it must run on its own"
CALLED = "the function is called with what --shape gives, by name"


def main() -> int:
    """Answer one request from stdin on stdout; what the user's file prints goes to stderr."""
    request: dict[str, Any] = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        answer = _answer(Path(request["file"]), request["name"], request["shape"], request["arguments"])
    except TreadleError as error:
        if type(error).__name__ not in ERRORS:
            raise
        line = _line(error.__cause__ or error, request["file"])
        answer = {"error": type(error).__name__, "fields": error.fields, "hint": error.next_step, "line": line}
    answers.write(json.dumps(answer) + "\n")
    return 0


def _answer(file: Path, name: str, shape: Mapping[str, int], arguments: Mapping[str, str]) -> dict[str, Any]:
    found = _attribute(file, name)
    if hasattr(found, "arg_names"):
        return {"triton_ir": triton_ir(found, name, arguments)}
    if arguments:
        hint = f"leave out --arguments; {CALLED}" if callable(found) else "leave out --arguments"
        raise NotAProgram(name=f"{file}:{name}", found="no Triton kernel, so it takes no --arguments", hint=hint)
    made = _made(found, f"{file}:{name}", shape) if callable(found) else found
    if not isinstance(made, TileProgram):
        raise NotAProgram(name=f"{file}:{name}", found=f"a value of type `{type(made).__name__}`")
    return {"program": encode(made)}


def _attribute(file: Path, name: str) -> Any:
    """Import a user's file under a name of its own and return what it calls `name`."""
    spec = spec_from_file_location(f"treadle_own_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except INVALID:
        raise
    except (Exception, SystemExit) as error:
        raise NotAProgram(
            name=f"{file}:{name}", found=f"in a file that fails: {_told(error)}", hint=IMPORTED
        ) from error
    if not name or not hasattr(module, name):
        names = [key for key, value in vars(module).items() if hasattr(value, "arg_names") or callable(value)]
        mine = [key for key in names if getattr(vars(module)[key], "__module__", "") == spec.name]
        hint = closest(name, mine) or f"write `{file}:NAME`; it has {', '.join(mine) or 'no functions'}"
        raise NotAProgram(name=f"{file}:{name}", found="not in the file", hint=hint)
    return getattr(module, name)


def _made(function: Any, name: str, shape: Mapping[str, int]) -> Any:
    try:
        return function(**shape)
    except INVALID:
        raise
    except (Exception, SystemExit) as error:
        raise NotAProgram(name=name, found=f"a function that fails: {_told(error)}", hint=CALLED) from error


def _told(error: BaseException) -> str:
    """Return what an error of the user's code says: coded ones by their code, others by their kind."""
    kind = error.code if isinstance(error, TreadleError) else type(error).__name__
    return f"{kind}: {error}"


def _line(error: BaseException | None, file: str) -> int:
    """Return the line of the user's file that an error came from, the innermost one; 0 when it has none."""
    mine = Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == mine:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__) if error else ()
    return next((frame.lineno or 0 for frame in reversed(frames) if Path(frame.filename).resolve() == mine), 0)


if __name__ == "__main__":
    sys.exit(main())
