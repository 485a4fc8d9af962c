"""What cannot be read of a Triton kernel."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError


class UnreadableIr(TreadleError):
    """Text that is not Triton IR as the compiler prints it."""

    code = "TRD117"
    template = "this is not Triton IR: {reason}"
    hint = (
        "give the `.ttir` file that Triton wrote (TRITON_KERNEL_DUMP=1, or ~/.triton/cache), or the kernel's own file"
    )


class NoHotLoop(TreadleError):
    """A kernel without a loop that loads tiles or multiplies them."""

    code = "TRD118"
    template = "kernel `{kernel}` has no loop over tiles"
    hint = "`for` loops over tiles are read; a program that runs straight through has nothing to pipeline"
    exit_code = ExitCode.UNMET


class UnsupportedIr(TreadleError):
    """An operation in the hot loop that has no tile operation here."""

    code = "TRD119"
    template = "`{operation}` inside the hot loop of `{kernel}` is not supported"
    hint = "docs/verbs/kernel.md lists the operations that are read; move this one out of the loop"
    exit_code = ExitCode.UNMET


class UnknownTrips(TreadleError):
    """A loop bound that depends on something not given."""

    code = "TRD116"
    template = "how often the hot loop of `{kernel}` runs depends on {what}"


class MissingArgument(TreadleError):
    """A kernel whose arguments are not those that were given."""

    code = "TRD127"
    template = "`{kernel}` has {what}"
    hint = (
        'give every argument a type, and every constexpr its value: --arguments "a=*fp16 m=i32 BLOCK=128 CAUSAL=True"'
    )


class UncompiledKernel(TreadleError):
    """A kernel that Triton's front end refuses."""

    code = "TRD128"
    template = "Triton does not compile `{kernel}`: {reason}"
    hint = "are --arguments types and constants that the kernel takes?"


class NotAProgram(TreadleError):
    """A name in a user's file that is neither a Triton kernel nor a tile program."""

    code = "TRD129"
    template = "`{name}` is {found}"
    hint = "a `@triton.jit` function, a TileProgram, or a function that returns one"
