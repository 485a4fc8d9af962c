"""Figures and evidence for people."""

from __future__ import annotations

from typing import Any

from treadle.ir.certificate import Level, ProofKind
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.loop import Loop

_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

CHECKED: dict[ProofKind, str] = {
    ProofKind.RESOURCE: "demand on the resource recounted",
    ProofKind.RECURRENCE: "cycle or path walked again",
    ProofKind.CAPACITY: "volume and capacity recounted",
    ProofKind.COUNT: "counted again",
    ProofKind.LP_DUAL: "multipliers added up in exact arithmetic",
    ProofKind.PATTERN_DUAL: "prices checked by pricing again",
    ProofKind.ENUMERATION: "enumeration run again",
    ProofKind.PROOF_LOG: "refutation replayed step by step",
    ProofKind.SOLVER: "not checked: rests on the solver's word",
    ProofKind.NONE: "no bound claimed",
}
"""What `treadle verify` does, by kind of proof."""


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with thousands separated and `digits` significant digits; a dash for none."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1:
        return f"{value:,.{max(0, digits - len(str(int(abs(value)))))}f}"
    return f"{value:.{digits}g}"


def bytes_text(amount: float) -> str:
    """Return an amount of bytes in the largest binary unit that keeps it at 1 or more."""
    for size, unit in _BYTES:
        if amount >= size:
            return f"{figure(amount / size, 3)} {unit}"
    return f"{figure(amount)} B"


def predicted(kernel: KernelPlan, name: str) -> float | None:
    """Return the value of a prediction, or None."""
    return next((p.value for p in kernel.predictions if p.name == name), None)


def evidence_in_words(level: Level, loop: Loop | None = None) -> str:
    """Return what the bound of a level rests on, in a sentence; evidence of an unknown form is listed as it is."""
    if level.name == "ring_bytes" and level.proof is ProofKind.RECURRENCE:
        return "every ring is as shallow as the operations between its producer and readers allow"
    return _sentence(level.proof.value, level.evidence, loop)


def _sentence(proof: str, evidence: dict[str, Any], loop: Loop | None) -> str:
    if proof == ProofKind.RESOURCE.value and "unit" in evidence:
        return _unit(evidence)
    if isinstance(evidence.get("tree"), dict):
        nodes = len(evidence["tree"].get("nodes", ()))
        return f"a search tree of {figure(nodes)} nodes, with multipliers at its leaves"
    steps = evidence.get("cycle", evidence.get("path"))
    if proof == ProofKind.RECURRENCE.value:
        return _walk(steps, loop) if isinstance(steps, list) else "the longest path at this interval"
    if "solver" in evidence:
        return _solver(evidence, loop)
    if proof == ProofKind.PROOF_LOG.value and "refuted" in evidence:
        return _refuted(evidence)
    if proof == ProofKind.ENUMERATION.value and isinstance(evidence.get("refuted"), list):
        refuted = ", ".join(figure(number) for number in evidence["refuted"])
        return f"treadle's own search finds no schedule at an interval of {refuted}; {_basis(evidence, loop)}"
    return _listed(evidence)


def _refuted(evidence: dict[str, Any]) -> str:
    """Return what proof logs refute, and what they weigh; logs of several intervals are lists of lists."""
    size = text_size(evidence.get("logs", evidence.get("log", "")))
    if isinstance(evidence["refuted"], list):
        values = ", ".join(figure(value) for value in evidence["refuted"])
        return f"{values} are refuted by proofs of {bytes_text(size)} (compressed)"
    return f"{figure(evidence['refuted'])} is refuted by a proof of {bytes_text(size)} (compressed)"


def text_size(logs: Any) -> int:
    """Return the characters of a text, or of all texts in nested lists."""
    return sum(map(text_size, logs)) if isinstance(logs, list | tuple) else len(str(logs))


def _unit(evidence: dict[str, Any]) -> str:
    unit = evidence["unit"]
    if "occupied_cycles" in evidence:
        instances = evidence.get("instances", 1)
        shared = "" if instances == 1 else f" on {figure(instances)} instances"
        return f"{unit} works {figure(evidence['occupied_cycles'])} cycles for every iteration{shared}"
    if "earliest" in evidence:
        work = f", works {figure(evidence['work_cycles'])} cycles" if "work_cycles" in evidence else ""
        after = figure(evidence.get("remaining"))
        return f"{unit} cannot start before cycle {figure(evidence['earliest'])}{work}, and {after} cycles follow"
    return _listed(evidence)


def _walk(steps: list[Any], loop: Loop | None) -> str:
    names = [_step(step, loop) for step in steps]
    return "along " + ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _step(step: Any, loop: Loop | None) -> str:
    if not isinstance(step, dict):
        return str(step)
    position = step.get("dependence")
    if loop is not None and isinstance(position, int) and 0 <= position < len(loop.dependences):
        dependence = loop.dependences[position]
        later = f" (distance {dependence.distance})" if dependence.distance else ""
        return f"{dependence.source} → {dependence.target}{later}"
    return f"ring {step['ring']}" if "ring" in step else _listed(step)


def _solver(evidence: dict[str, Any], loop: Loop | None) -> str:
    who = " ".join(str(evidence[key]) for key in ("solver", "version") if key in evidence)
    how = ", ".join(f"{key} {evidence[key]}" for key in ("seed", "workers") if key in evidence)
    return f"{who} ({how}) proves it{'; ' + _basis(evidence, loop) if 'basis' in evidence else ''}"


def _basis(evidence: dict[str, Any], loop: Loop | None) -> str:
    basis = evidence.get("basis")
    if not isinstance(basis, dict):
        return "no bound without it"
    inner = _sentence(str(basis.get("proof")), basis.get("evidence") or {}, loop)
    return f"without that the bound is {figure(basis.get('value'))} [{basis.get('proof')}]: {inner}"


def _listed(evidence: dict[str, Any]) -> str:
    shown = ", ".join(f"{key.replace('_', ' ')} {_brief(value)}" for key, value in evidence.items())
    return shown or "no further evidence"


def _brief(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = str(value)
        return shown if len(shown) <= 120 else shown[:117] + "..."
    return figure(value)
