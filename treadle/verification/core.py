"""`treadle verify`: re-derives what a plan claims, with no solver in the process.

Each kind of plan has one reviewer, which rebuilds the plan's problem from its inputs, checks legality, recomputes the
predictions and bounds, and returns findings. What concerns every plan alike (seal, id, artifacts, parts) is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from treadle.ir.diagnostics import Finding, Severity
from treadle.ir.errors import NotAPlan, UnreadableFile
from treadle.ir.plan import Plan, Prediction, load, read_bytes

REVIEWERS: dict[str, str] = {
    "reassignment": "treadle.verification.packing:review_reassignment",
    "adapters": "treadle.verification.layout:review_adapters",
    "batch-order": "treadle.verification.layout:review_batch",
    "buffers": "treadle.verification.layout:review_buffers",
    "memory-spaces": "treadle.verification.memory_spaces:review",
    "experts": "treadle.verification.layout:review_experts",
    "serving": "treadle.verification.serving:review",
    "tiers": "treadle.verification.layout:review_tiers",
    "overlap-choice": "treadle.verification.overlap_choice:review",
    "overlap": "treadle.verification.overlap:review",
    "sections": "treadle.verification.sections:review",
    "packing": "treadle.verification.packing:review",
    "parallel": "treadle.verification.parallel:review",
    "replan": "treadle.verification.replan:review",
    "sequence-groups": "treadle.verification.grouping:review",
    "deployment": "treadle.verification.deployment:review",
    "kernel": "treadle.verification.kernel:review",
}
"""Kind of plan -> `module:function`; the function has the type `Reviewer`."""


@dataclass(frozen=True, slots=True)
class Review:
    """Outcome of a verification: claims recomputed, claims that rest on a solver's word, findings."""

    rederived: int
    on_solver_word: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes the plan wrong; the other findings are warnings."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        errors, warnings = len(self.errors), len(self.findings) - len(self.errors)
        counted = ((errors, "finding"), (warnings, "warning"))
        told = [f"{count} {word}{'s' * (count > 1)}" for count, word in counted if count]
        return " and ".join(told) or "nothing found"

    def __add__(self, other: Review) -> Review:
        return Review(
            self.rederived + other.rederived,
            self.on_solver_word + other.on_solver_word,
            self.findings + other.findings,
        )


Reviewer = Callable[[Plan, Path | None], Review]
"""Reviews one plan; the folder is None when only the plan's data is at hand."""


def verify(path: Path) -> Review:
    """Verify a plan folder (or a bare plan.json) and all its parts."""
    folder = path if path.is_dir() else None
    plan = load(path)
    review = review_plan(plan, folder)
    for part in plan.parts if folder else ():
        review += verify(_inside(path, part))
    return review


def review_plan(plan: Plan, folder: Path | None) -> Review:
    """Verify one plan without its parts."""
    module, _, function = REVIEWERS[plan.kind].partition(":")
    reviewer: Reviewer = getattr(import_module(module), function)
    return _review_envelope(plan, folder) + reviewer(plan, folder)


def _review_envelope(plan: Plan, folder: Path | None) -> Review:
    findings: list[Finding] = []
    for name, code, expected, found in (
        ("seal", "TRD490", plan.expected_seal(), plan.seal),
        ("id", "TRD491", plan.expected_id(), plan.id),
    ):
        if expected != found:
            findings.append(Finding(code, name, f"the plan's {name} does not match its contents", expected, found))
    for artifact in plan.artifacts if folder else ():
        found = _file_digest(_inside(folder, artifact.path)) if folder else ""
        if found != artifact.sha256:
            findings.append(Finding("TRD492", artifact.path, "file is not the planned one", artifact.sha256, found))
    return Review(2 + (len(plan.artifacts) if folder else 0), 0, tuple(findings))


def compare_predictions(where: str, expected: Sequence[Prediction], found: Sequence[Prediction]) -> list[Finding]:
    """Return TRD494 for every recomputed figure that the plan states otherwise, leaves out, adds or repeats."""
    findings: list[Finding] = []
    for position in range(max(len(expected), len(found))):
        right = expected[position] if position < len(expected) else None
        stated = found[position] if position < len(found) else None
        if right != stated:
            name = (right or stated or expected[0]).name
            findings.append(
                Finding("TRD494", f"{where}.{name}", "the prediction is another", _figure(right), _figure(stated))
            )
    return findings


def _figure(prediction: Prediction | None) -> str:
    return f"{prediction.value!r} {prediction.unit}" if prediction else "nothing"


def _inside(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise NotAPlan(path=str(folder), reason=f"`{relative}` points outside the plan folder")
    return path


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except UnreadableFile:
        return "no readable file"
