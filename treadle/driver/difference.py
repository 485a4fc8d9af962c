"""What changed between two plans of the same kind, and which side is better, level by level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from treadle.ir.certificate import Certificate, Level
from treadle.ir.codec import encode
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import Plan


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: where, old and new value as text, and `better`, `worse` or nothing said."""

    where: str
    old: str
    new: str
    verdict: str = ""


def certificates_of(plan: Plan) -> dict[str, Certificate]:
    """Return every certificate of the plan by name: the plan's own by problem, its kernels' by kernel name."""
    own = {certificate.problem: certificate for certificate in plan.certificates}
    kernels = {kernel.name: kernel.certificate for kernel in getattr(plan.body, "kernels", ())}
    return {**own, **kernels}


def difference(old: Plan, new: Plan) -> list[Change]:
    """Compare two plans: inputs, options, versions, certificates, predictions.

    Raises:
        InvalidValue: the plans are of different kinds.
    """
    if old.kind != new.kind:
        raise InvalidValue(message=f"plans of kind `{old.kind}` and `{new.kind}` cannot be compared")
    return [
        *_mapping("input", {i.role: i.sha256[:12] for i in old.inputs}, {i.role: i.sha256[:12] for i in new.inputs}),
        *_mapping("option", old.options, new.options),
        *_mapping("version", old.versions, new.versions),
        *_certificates(certificates_of(old), certificates_of(new)),
        *_mapping("prediction", _predictions(old), _predictions(new)),
    ]


def _mapping(kind: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    return [
        Change(f"{kind} {key}", _shown(old.get(key)), _shown(new.get(key)))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _certificates(old: Mapping[str, Certificate], new: Mapping[str, Certificate]) -> list[Change]:
    changes: list[Change] = []
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            changes.append(Change(name, "there" if name in old else "absent", "there" if name in new else "absent"))
            continue
        changes += _levels(name, old[name], new[name])
    return changes


def _levels(name: str, old: Certificate, new: Certificate) -> list[Change]:
    """Compare levels in order; after the first level whose value differs the rest is not comparable."""
    changes: list[Change] = []
    for before, after in zip(old.levels, new.levels, strict=False):
        if before.value != after.value:
            improved = (after.value > before.value) == before.maximize
            changes.append(
                Change(f"{name} {before.name}", _level(before), _level(after), "better" if improved else "worse")
            )
            return changes
        if (before.status, before.proof, before.bound) != (after.status, after.proof, after.bound):
            changes.append(Change(f"{name} {before.name}", _level(before), _level(after)))
    return changes


def _level(level: Level) -> str:
    return f"{level.value:g} {level.unit} {level.status.value} [{level.proof.value}]"


def _predictions(plan: Plan) -> dict[str, str]:
    own = {p.name: f"{p.value:g} {p.unit}" for p in plan.predictions}
    for kernel in getattr(plan.body, "kernels", ()):
        own |= {f"{kernel.name} {p.name}": f"{p.value:g} {p.unit}" for p in kernel.predictions}
    return own


def _shown(value: object) -> str:
    return "-" if value is None else str(encode(value))
