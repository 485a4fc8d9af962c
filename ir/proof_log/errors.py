"""What is wrong with a proof log."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError


class UnreadableProof(TreadleError):
    """A proof whose text is not of the DRCP form."""

    code = "TRD016"
    template = "line {line} of the proof, `{text}`, is not DRCP: {reason}"
    exit_code = ExitCode.UNMET


class WrongStep(TreadleError):
    """A step of a proof that does not follow."""

    code = "TRD017"
    template = "step {step} of the proof does not follow: {reason}"
    exit_code = ExitCode.UNMET
