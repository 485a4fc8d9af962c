"""What can go wrong between a kernel plan and a binary."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError


class NoProgram(TreadleError):
    """A kernel plan without a tile program: a bare loop has no code."""

    code = "TRD516"
    template = "`{kernel}` is a bare loop without a tile program: there is nothing to emit"
    hint = "build it from a family of tile programs, or keep to schedules for loops read from files"


class NoTemplate(TreadleError):
    """A tile program of a family that no template prints."""

    code = "TRD517"
    template = "family `{family}` of kernel `{kernel}` has no Triton template"


class ForeignSchedule(TreadleError):
    """A schedule that does not place the operations of the tile program."""

    code = "TRD512"
    template = "the schedule of `{kernel}` does not place the operation `{operation}` of its tile program"
    hint = "schedule the loop that was lowered from this program"


class CompilationFailed(TreadleError):
    """The Triton compiler refused a kernel, or died over it."""

    code = "TRD513"
    template = "Triton {version} cannot compile `{kernel}` for {target}: {reason}"
    hint = "try other tile sizes, or fewer slots per ring"
    exit_code = ExitCode.UNMET


class UnsupportedTarget(TreadleError):
    """A machine architecture that kernels are not compiled for."""

    code = "TRD514"
    template = "cannot compile kernels for the architecture `{target}`"
