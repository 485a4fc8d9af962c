"""Bounds under the values that earlier levels ended with, where a later level found better ones than they were told."""

from __future__ import annotations

from dataclasses import replace

from treadle.ir.certificate import ProofKind
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.pipeline.bounds import register_bound
from treadle.solvers.pipeline.walks import walked_bound


def restated(warps: WarpLoop, ii: int, name: str, bound: Bound, decided: dict[str, int]) -> Bound:
    """Return a level's bound under the final values of all levels: less is left than where the bound was found.

    Args:
        warps: the loop.
        ii: its interval.
        name: the level.
        bound: its bound, under values of the levels before that are no smaller.
        decided: the values that all levels ended with.
    """
    evidence = dict(bound.evidence)
    if "basis" in evidence:
        basis = evidence["basis"]
        found = Bound(basis["value"], ProofKind(basis["proof"]), basis["evidence"])
        found = restated(warps, ii, name, found, decided)
        evidence["basis"] = {"value": found.value, "proof": found.proof.value, "evidence": found.evidence}
    if evidence.get("traffic_bytes") is not None:
        return register_bound(warps, ii, decided["traffic_bytes"])
    if "most" in evidence:
        evidence["most"] = {level: decided[level] for level in evidence["most"]}
        if evidence != bound.evidence and "refuted" not in evidence:
            return walked_bound(warps, ii, name, evidence["most"], decided[name]) or replace(bound, evidence=evidence)
    return replace(bound, evidence=evidence)
