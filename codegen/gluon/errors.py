"""What can go wrong between a warp program and a Gluon kernel."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError


class NoGluonFrame(TreadleError):
    """A family of tile programs that no Gluon frame surrounds."""

    code = "TRD550"
    template = "family `{family}` of kernel `{kernel}` has no Gluon frame for {architecture}"
    hint = "emit portable Triton instead (--emit triton)"
    exit_code = ExitCode.UNMET


class NotEmittable(TreadleError):
    """A warp program that Gluon cannot say, or whose frame does not fit."""

    code = "TRD551"
    template = "warp program `{kernel}` cannot be emitted as Gluon: {reason}"
    hint = "other tile sizes (--tiles), or emit portable Triton (--emit triton)"
    exit_code = ExitCode.UNMET


class EvidenceMismatch(TreadleError):
    """A compiled kernel that is not what its plan says, after all rounds with the solver."""

    code = "TRD552"
    template = "the compiled `{kernel}` does not keep its plan after {rounds} rounds: {reason}"
    hint = "choose smaller tiles (--tiles); the plan's log says what every round tried"
    exit_code = ExitCode.UNMET


class NoSharedMemoryLeft(TreadleError):
    """The parts of a kernel around its loop need shared memory that the rings have taken."""

    code = "TRD553"
    template = "`{kernel}` needs {needed} bytes of shared memory beside its rings; {free} are left"
    hint = "schedule with fewer ring slots (smaller tiles), so that the output can be staged"
    exit_code = ExitCode.UNMET

    @property
    def missing_bytes(self) -> int:
        """Return the bytes that rings would have to give up."""
        return int(str(self.fields["needed"])) - int(str(self.fields["free"]))
