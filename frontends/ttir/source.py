"""A `@triton.jit` function in a user's file -> the text of its Triton IR, by Triton's own front end."""

from __future__ import annotations

import os
import re
import warnings
from ast import literal_eval
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from treadle.frontends.ttir.errors import MissingArgument, UncompiledKernel
from treadle.ir.diagnostics import closest
from treadle.ir.errors import MissingExtra

TARGET = ("cuda", 90, 32)
"""What Triton is told to compile for; its IR before lowering does not depend on it."""

_TYPE = re.compile(
    r"\*{0,2}k?(?:[iu](?:1|8|16|32|64)|(?:fp|f|bf)(?:16|32|64)|fp8e\w+)|(?:\*k?)?(?:nv)?(?:Tma|tensordesc).*"
)
"""Types of arguments as Triton writes them: `i32`, `*fp16`, `tensordesc<fp16[128,64]>`."""


def triton_ir(function: Any, name: str, arguments: Mapping[str, str]) -> str:
    """Return the Triton IR of a kernel.

    Args:
        function: the `@triton.jit` function.
        name: of the function, for messages.
        arguments: by name: a type (`*fp16`, `i32`, `tensordesc<fp16[128,64]>`), or the value of a `tl.constexpr`:
            a number, `True`, `None`, text, `tl.float16`. Those with a default may be left out.

    Raises:
        MissingExtra: Triton is not installed. MissingArgument: an argument without a type, or of another name.
        UncompiledKernel: Triton refuses the kernel.
    """
    try:
        compiler: Any = import_module("triton.compiler")
        backend: Any = import_module("triton.backends.compiler")
    except ImportError:
        raise MissingExtra(package="triton", purpose="reading a Triton kernel", extra="kernels") from None
    given = _checked(function, name, arguments)
    constants = {key: _constant(word) for key, word in given.items() if _is_constant(function, key, word)}
    defaults = {p.name: p.default for p in function.params if p.name not in given}
    signature = {key: "constexpr" if key in constants else word for key, word in given.items()}
    signature |= dict.fromkeys(defaults, "constexpr")
    source = compiler.ASTSource(fn=function, signature=signature, constexprs={**constants, **defaults})
    target = backend.GPUTarget(*TARGET)
    try:
        return str(_compiled(compiler, source, target).asm["ttir"])
    except Exception as error:
        if text := _read_before_failure(compiler, source, target):
            return text
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else ""
        # The words of a KeyError are the key alone.
        reason = f"{type(error).__name__}: {reason}" if len(reason.split()) < 2 else reason
        raise UncompiledKernel(kernel=name, reason=reason) from error


def _compiled(compiler: Any, source: Any, target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about defaults of code generation, which is not what is wanted here
        return compiler.compile(source, target=target)


def _read_before_failure(compiler: Any, source: Any, target: Any) -> str:
    """Return the IR of a kernel that only later passes refuse (those for another machine than `TARGET`), if any.

    The compiler writes what every pass makes to its cache before it runs the next one.
    """
    before = os.environ.get("TRITON_CACHE_DIR")
    with TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            _compiled(compiler, source, target)
        except Exception:
            # The first compilation has said it; what counts here is what came before it.
            found = sorted(Path(folder).glob("*/*.ttir"))
            return found[0].read_text(encoding="utf-8") if found else ""
        finally:
            os.environ.pop("TRITON_CACHE_DIR")
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before
    return ""


def _is_constant(function: Any, name: str, word: str) -> bool:
    """Whether an argument is a `tl.constexpr`, or a number that its value is specialized for (a stride of 1)."""
    return word.lstrip("-").isdecimal() or any(p.name == name and p.is_constexpr for p in function.params)


def _constant(word: str) -> Any:
    """Return a constant as Python writes it (numbers, True, None, quoted text), `tl.float16`, or else the word."""
    if word.startswith("tl."):
        return getattr(import_module("triton.language"), word.removeprefix("tl."), word)
    try:
        return literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _checked(function: Any, kernel: str, arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments in the kernel's order; raises MissingArgument for what is too many, missing or no type."""
    names: list[str] = list(function.arg_names)
    for name in arguments:
        if name not in names:
            raise MissingArgument(kernel=kernel, what=f"no argument `{name}`", hint=closest(name, names))
    defaults = {p.name for p in function.params if p.has_default}
    missing = [name for name in names if name not in arguments and name not in defaults]
    if missing:
        raise MissingArgument(kernel=kernel, what=f"no type for {', '.join(missing)}")
    for name, word in arguments.items():
        if not _is_constant(function, name, word) and not _TYPE.fullmatch(word):
            raise MissingArgument(kernel=kernel, what=f"the argument `{name}`, and `{word}` is no type of Triton's")
    return {name: arguments[name] for name in names if name in arguments}
