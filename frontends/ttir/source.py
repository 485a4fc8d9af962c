"""A `@triton.jit` function in a user's file -> the text of its Triton IR, by Triton's own front end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from treadle.frontends.ttir.errors import MissingArgument, UncompiledKernel
from treadle.ir.diagnostics import closest
from treadle.ir.errors import MissingExtra

TARGET = ("cuda", 90, 32)
"""What Triton is told to compile for; its IR before lowering does not depend on it."""


def triton_ir(function: Any, name: str, arguments: Mapping[str, str]) -> str:
    """Return the Triton IR of a kernel.

    Args:
        function: the `@triton.jit` function.
        name: of the function, for messages.
        arguments: by name: a type (`*fp16`, `i32`, `tensordesc<fp16[128,64]>`), or a number for a `tl.constexpr`.

    Raises:
        MissingExtra: Triton is not installed. MissingArgument: an argument without a type, or of another name.
        UncompiledKernel: Triton refuses the kernel.
    """
    try:
        compiler: Any = import_module("triton.compiler")
        backend: Any = import_module("triton.backends.compiler")
    except ImportError:
        raise MissingExtra(package="triton", purpose="reading a Triton kernel", extra="kernels") from None
    _check(function.arg_names, name, arguments)
    numbers = {key: int(word) for key, word in arguments.items() if _is_number(word)}
    signature = {key: "constexpr" if key in numbers else word for key, word in arguments.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about defaults of code generation, which is not what is wanted here
            source = compiler.ASTSource(fn=function, signature=signature, constexprs=numbers)
            return str(compiler.compile(source, target=backend.GPUTarget(*TARGET)).asm["ttir"])
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UncompiledKernel(kernel=name, reason=reason) from error


def _is_number(word: str) -> bool:
    return word.lstrip("-").isdecimal()


def _check(names: list[str], kernel: str, arguments: Mapping[str, str]) -> None:
    for name in arguments:
        if name not in names:
            raise MissingArgument(kernel=kernel, what=f"no argument `{name}`", hint=closest(name, names))
    missing = [name for name in names if name not in arguments]
    if missing:
        raise MissingArgument(kernel=kernel, what=f"no type for {', '.join(missing)}")
