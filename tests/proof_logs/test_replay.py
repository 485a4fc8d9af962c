"""The proof checker: right proofs of random problems, hundreds of damaged ones, and text that is no proof."""

from __future__ import annotations

import random
import re
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.proof_log.drcp import parse
from treadle.ir.proof_log.errors import UnreadableProof, WrongStep
from treadle.ir.proof_log.packed import LARGEST_TEXT_BYTES, packed, unpacked
from treadle.ir.proof_log.problem import Problem, Term, satisfied
from treadle.ir.proof_log.replay import replay
from treadle.solvers.refutation.log import logged

pytest.importorskip("pumpkin_solver", reason="extra `proofs`")

LAST = 5


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draw tasks on a resource with precedences and an inequality of more terms: about half are infeasible."""
    problem = Problem()
    starts = [problem.variable(0, draw(st.integers(1, LAST))) for _ in range(draw(st.integers(2, 4)))]
    shifted = [Term(start.variable, 1, draw(st.integers(0, 4))) for start in starts]
    problem.cumulative(shifted, [draw(st.integers(1, 3)) for _ in starts], draw(st.integers(1, 2)))
    for _ in range(draw(st.integers(0, 3))):
        before, after = draw(st.permutations(starts))[:2]
        problem.at_most([before, Term(after.variable, -1)], -draw(st.integers(-2, 3)))
    scales = [Term(start.variable, draw(st.sampled_from((-2, -1, 1, 3)))) for start in starts]
    problem.at_most(scales, draw(st.integers(-8, 20)))
    return problem


def feasible(problem: Problem) -> bool:
    """Try all values."""
    return any(satisfied(problem, list(values)) for values in product(*(range(a, b + 1) for a, b in problem.bounds)))


@settings(max_examples=150)
@given(problems())
def test_a_proof_exists_and_replays_exactly_where_nothing_is_feasible(problem: Problem) -> None:
    log = logged(problem, 10)
    assert (log is None) == feasible(problem)
    if log is not None:
        assert replay(problem, unpacked(log)) >= 1


def pigeons(holes: int, count: int) -> Problem:
    """Return `count` tasks of one cycle in `holes` cycles, in pairs that may not be far apart."""
    problem = Problem()
    starts = [problem.variable(0, holes - 1) for _ in range(count)]
    problem.cumulative(starts, [1] * count, 1)
    for before, after in pairwise(starts):
        problem.at_most([before, Term(after.variable, -1)], 3)
    return problem


def proof_of(problem: Problem) -> str:
    """Return the text of a proof."""
    log = logged(problem, 10)
    assert log is not None
    return unpacked(log)


def damaged(text: str, seed: int) -> str:
    """Change one number, drop one line, or swap two words of a proof."""
    chance = random.Random(seed)
    lines = text.splitlines()
    place = chance.randrange(len(lines) - 1)
    kind = chance.randrange(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        numbers = [match.span() for match in re.finditer(r"-?\d+", lines[place])]
        begin, end = chance.choice(numbers)
        changed = str(int(lines[place][begin:end]) + chance.choice((-2, -1, 1, 2)))
        lines[place] = lines[place][:begin] + changed + lines[place][end:]
    elif kind == 2:
        words = lines[place].split()
        del words[chance.randrange(1, len(words))]
        lines[place] = " ".join(words)
    else:
        other = chance.randrange(len(lines) - 1)
        lines[place], lines[other] = lines[other], lines[place]
    return "\n".join(lines) + "\n"


def accepted(problem: Problem, text: str) -> bool:
    """Whether the checker takes a proof."""
    try:
        replay(problem, text)
    except (UnreadableProof, WrongStep):
        return False
    return True


def test_no_damaged_proof_refutes_what_is_feasible() -> None:
    text = proof_of(pigeons(4, 5))
    feasible_one = pigeons(5, 5)
    assert not accepted(feasible_one, text)
    assert not any(accepted(feasible_one, damaged(text, seed)) for seed in range(600))


def test_damage_is_found() -> None:
    problem = pigeons(4, 5)
    text = proof_of(problem)
    changed = [proof for seed in range(600) if sorted((proof := damaged(text, seed)).split()) != sorted(text.split())]
    # What is still taken is still a proof: a stronger premise, a weaker consequent, a step named twice.
    taken = [proof for proof in changed if accepted(problem, proof)]
    assert len(changed) > 300
    assert len(taken) < len(changed) / 6


@pytest.mark.parametrize("line", range(40))
def test_every_dropped_inference_is_missed(line: int) -> None:
    problem = pigeons(3, 4)
    lines = proof_of(problem).splitlines()
    inferences = [position for position, text in enumerate(lines) if text.startswith("i ")]
    gone = inferences[line % len(inferences)]
    with pytest.raises(WrongStep, match="does not follow"):
        replay(problem, "\n".join(lines[:gone] + lines[gone + 1 :]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "c UNSAT"),
        ("i 9 0 c:1 l:time_table\n", "c UNSAT"),
        ("a 1 [y <= 2]\nc UNSAT\n", "not DRCP"),
        ("i 9 4 0 c:1 l:x\nc UNSAT\n", "KeyError"),
        ("n nine 0\nc UNSAT\n", "not DRCP"),
        ("what\nc UNSAT\n", "what"),
    ],
)
def test_other_text_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(UnreadableProof, match=reason):
        parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("c UNSAT\n", "empty nogood"),
        ("n 3 0\nc UNSAT\n", "no contradiction"),
        ("n 3 0 7\nc UNSAT\n", "not there yet"),
        ("n 1 0\nc UNSAT\n", "number is taken"),
        ("a 1 [x9 <= 2]\ni 3 1 0 c:1 l:x\nc UNSAT\n", "allows its opposite"),
        ("a 1 [x9 <= 2]\nn 3 1 0\nc UNSAT\n", "no variable x9"),
        ("a 1 [x0 <= 2]\ni 3 0 1 c:77 l:x\nc UNSAT\n", "allows its opposite"),
    ],
)
def test_wrong_steps_are_refused(text: str, reason: str) -> None:
    problem = Problem()
    first, second = problem.variable(0, 4), problem.variable(0, 4)
    problem.at_most([first, second], 3)
    with pytest.raises(WrongStep, match=reason):
        replay(problem, text)


def test_packed_proofs_come_back_and_others_do_not() -> None:
    text = proof_of(pigeons(3, 4))
    assert unpacked(packed(text)) == text
    for line in (
        "",
        "no base85 \\",
        packed(text)[:-10],
        packed(text)[10:],
        packed(text) + "0",
        packed("0" * (LARGEST_TEXT_BYTES + 1)),
    ):
        with pytest.raises(UnreadableProof):
            unpacked(line)
