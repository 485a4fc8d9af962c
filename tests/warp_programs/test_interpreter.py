"""What a warp program computes does not depend on the interleaving, and is what the mathematics says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.warp_programs.cases import CASES, case, needed_slots
from tests.warp_programs.mutations import mutants
from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.warp_interpreter import Results, Stuck, differences, interpret, reference
from treadle.costmodels.warp_rules import Array
from treadle.costmodels.warp_semantics import FamilySemantics, MixedSemantics
from treadle.ir.tile.program import OperationKind


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_any_interleaving_gives_the_reference(name: str, machine: str) -> None:
    solved = case(name, machine)
    for trips in (0, 1, 2, 3, 6):
        expected = reference(solved.facts, trips, MixedSemantics())
        for seed in range(2):
            assert differences(interpret(solved.lowered, trips, MixedSemantics(), seed), expected) == []


def _run(name: str, machine: str, trips: int) -> tuple[FamilySemantics, Results]:
    solved = case(name, machine)
    semantics = FamilySemantics(solved.program)
    return semantics, interpret(solved.lowered, trips, semantics, 3)


@pytest.mark.parametrize("machine", ["h100", "b200", "a100"])
def test_gemm_is_the_product(machine: str) -> None:
    semantics, results = _run("gemm", machine, 3)
    a = np.concatenate([semantics.load("load_a", i) for i in range(3)], axis=1)
    b = np.concatenate([semantics.load("load_b", i) for i in range(3)], axis=1)
    assert np.allclose(results["acc", 2], a @ b.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("machine", ["h200", "b200"])
def test_swiglu_makes_both_products(machine: str) -> None:
    semantics, results = _run("swiglu", machine, 2)
    x = np.concatenate([semantics.load("load_x", i) for i in range(2)], axis=1)
    for product in ("gate", "up"):
        weight = np.concatenate([semantics.load(f"load_{product}", i) for i in range(2)], axis=1)
        assert np.allclose(results[product, 1], x @ weight.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "machine"), [("pair", "h100"), ("attention", "h100"), ("attention", "b200")])
@pytest.mark.parametrize("trips", [1, 3, 4])
def test_attention_is_softmax(name: str, machine: str, trips: int) -> None:
    semantics, results = _run(name, machine, trips)
    keys = np.concatenate([semantics.load("load_k", i) for i in range(trips)])
    values = np.concatenate([semantics.load("load_v", i) for i in range(trips)])
    for suffix in ("_0", "_1") if name == "pair" else ("",):
        expected = _attention(semantics.invariant(f"q{suffix or '_0'}" if name == "pair" else "q"), keys, values)
        made = results[f"acc{suffix}", trips - 1] / results[f"row_sum{suffix}", trips - 1][:, None]
        assert np.allclose(made, expected, rtol=0, atol=1e-9)


def _attention(queries: Array, keys: Array, values: Array) -> Array:
    scores = queries @ keys.T / np.sqrt(queries.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    result: Array = weights / weights.sum(1, keepdims=True) @ values
    return result


def test_races_show_in_the_results() -> None:
    """Most damage that only changes order shows within a few interleavings; a wrong result never goes unnoticed."""
    solved = case("attention", "b200")
    expected = reference(solved.facts, 6, MixedSemantics())
    shown = 0
    for kind, damaged in mutants(solved.lowered, needed_slots(solved.warps, solved.made), 4):
        if kind not in ("drop a wait", "deepen a wait", "drop a signal", "signal at once"):
            continue
        try:
            shown += any(differences(interpret(damaged, 6, MixedSemantics(), seed), expected) for seed in range(12))
        except Stuck:
            shown += 1
    assert shown >= 4


def test_unknown_arithmetic_is_refused() -> None:
    program = case("gemm", "h100").program
    with pytest.raises(UnsupportedOperation, match="interpreting this family"):
        FamilySemantics(replace(program, family="mystery"))
    strange = replace(program.operations[2], name="strange", kind=OperationKind.ELEMENTWISE, depth=0)
    changed = replace(program, operations=(*program.operations, strange))
    with pytest.raises(UnsupportedOperation, match="`strange`"):
        FamilySemantics(changed).apply("strange", 0, [np.zeros(1)])
