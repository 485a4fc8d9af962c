"""Driver: relaxation with rows where it is broken, its multipliers as the bound, then whole choices and offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from treadle.costmodels.space_replay import replay
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.codec import encode
from treadle.ir.layout.errors import DoesNotFit, NoPlacementFound
from treadle.ir.layout.memory_spaces import Space, SpacesProblem
from treadle.ir.layout.space_modes import offered
from treadle.ir.layout.space_plan import Piece, SpacesPlan, buffers_of, check, stays
from treadle.ir.layout.space_program import Multipliers, Program, bound_ns
from treadle.solvers.backend import Limits
from treadle.solvers.buffers.solve import Effort, solve_buffers
from treadle.solvers.memory_spaces.choices import closed, plan_of
from treadle.solvers.memory_spaces.descent import descend
from treadle.solvers.memory_spaces.dive import dive
from treadle.solvers.memory_spaces.late import late_window
from treadle.solvers.memory_spaces.model import StepModel

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SpacesEffort:
    """How much to spend.

    Rounds of the integer program, nodes of each tree and nodes where choices are many, rounds of offsets, choices kept
    beside those of the relaxation, choices up to which the integer program is solved, trials of the descent.
    """

    whole: int = 2
    nodes: int = 200
    few_nodes: int = 10
    offsets: int = 5
    kept: int = 250
    exact: int = 200
    trials: int = 2000


def solve_spaces(
    problem: SpacesProblem, effort: SpacesEffort | None = None, progress: Tell = lambda _: None
) -> tuple[SpacesPlan, Certificate]:
    """Return the choices of the least step time found, with offsets, and what is proven of it.

    Raises:
        DoesNotFit: no choices keep every space within its capacity (the relaxation proves it).
        NoPlacementFound: none were found within the effort.
    """
    effort = effort or SpacesEffort()
    program = Program(offered(problem))
    progress(f"{len(problem.sections)} sections, {len(problem.buffers)} buffers, {len(program.choices)} choices")
    multipliers, promising, relaxed = _relaxed(program)
    bound = max(bound_ns(program, Multipliers()), bound_ns(program, multipliers))
    progress(
        f"{relaxed} choices relaxed; bound {bound / 1e6:.3f} ms; {sum(problem.base_ns) / 1e6:.3f} ms without limits"
    )
    plan = _with_offsets(program, promising[: relaxed + effort.kept], effort, progress)
    step = replay(plan).step_ns
    status = Status.OPTIMAL if step <= bound else Status.FEASIBLE
    level = Level(
        "step time", "ns", step, min(bound, step), status, ProofKind.LP_DUAL, {"multipliers": encode(multipliers)}
    )
    return plan, Certificate("memory spaces", "section times, rates and modes as given", (level,))


def _relaxed(program: Program) -> tuple[Multipliers, list[int], int]:
    """Solve the relaxation; returns its multipliers, the choices from the most promising on, and how many it takes."""
    model = StepModel(program)
    solution = model.solve(Limits(), "glop")
    if solution.outcome.status is Status.INFEASIBLE:
        _refuse(program)
    reduced = model.reduced_ns(solution.outcome)
    order = np.lexsort((reduced, -solution.chosen))
    taken = int(np.count_nonzero(solution.chosen > 1e-6))
    return model.multipliers(solution.outcome), [int(one) for one in order], taken


def _refuse(program: Program) -> None:
    problem = program.problem
    over = [program.base_bytes[s] for s in range(len(problem.sections))]
    at = int(np.argmax(over))
    raise DoesNotFit(
        need=over[at],
        unit="bytes",
        where=f"in section {at} (`{problem.sections[at].name}`), and no moves free enough",
        capacity=problem.main.capacity_bytes,
    )


def _with_offsets(program: Program, kept: list[int], effort: SpacesEffort, progress: Tell) -> SpacesPlan:
    """Find whole choices whose stays have offsets; what fragments is taken off the capacities, and tried again."""
    problem, tight = program.problem, program
    for _ in range(effort.offsets):
        plan = best_choices(tight, kept, effort, progress)
        placed, over = _place(replace(plan, problem=problem))
        if placed is not None:
            findings = check(placed)
            assert not findings, findings[0]
            return placed
        progress(f"offsets need {max(over.values()):,} bytes more: planned again with less")
        spaces = tuple(_less(space, over.get(index, 0)) for index, space in enumerate(tight.problem.spaces))
        if any(space.capacity_bytes is not None and space.capacity_bytes < 1 for space in spaces):
            break
        tight = Program(replace(program.offered, problem=replace(problem, spaces=spaces)))
    raise NoPlacementFound(
        capacity=problem.main.capacity_bytes,
        unit="bytes",
        effort=f"{effort.offsets} rounds",
        best="choices fit by the sum of sizes, their offsets do not",
    )


def _less(space: Space, excess: int) -> Space:
    return space if space.capacity_bytes is None else replace(space, capacity_bytes=space.capacity_bytes - excess)


def _place(plan: SpacesPlan) -> tuple[SpacesPlan | None, dict[int, int]]:
    """Return the plan with offsets, or by how much each space is too small for the offsets found."""
    problem, pieces, over = plan.problem, list[Piece](), dict[int, int]()
    for space, each in enumerate(problem.spaces):
        stay = [piece for piece in stays(plan) if piece.space == space]
        if each.capacity_bytes is None or not stay:
            continue
        wanted = buffers_of(problem, stay, space)
        try:
            layout, _ = solve_buffers(wanted, Effort(rounds=2))
        except (NoPlacementFound, DoesNotFit):
            layout, _ = solve_buffers(replace(wanted, capacity_bytes=None))
            over[space] = layout.height_bytes - each.capacity_bytes
        pieces += [
            replace(piece, offset_bytes=offset) for piece, offset in zip(stay, layout.offsets_bytes, strict=True)
        ]
    return (None, over) if over else (replace(plan, pieces=tuple(pieces)), {})


def best_choices(program: Program, promising: list[int], effort: SpacesEffort, progress: Tell) -> SpacesPlan:
    """Return the best whole choices found: by the integer program where they are few, else by diving and descent."""
    kept = closed(program, promising)
    if len(kept) <= effort.exact:
        return exact_choices(program, kept, effort, progress)
    try:
        plan = plan_of(program, dive(program, kept, effort.few_nodes))
    except NoPlacementFound:
        plan = exact_choices(program, kept, replace(effort, nodes=effort.few_nodes, whole=1), progress)
    progress(f"whole choices: {replay(plan).step_ns / 1e6:.3f} ms")
    better = descend(program, plan, effort.trials)
    progress(f"by descent {replay(better).step_ns / 1e6:.3f} ms")
    return better


def exact_choices(program: Program, kept: set[int], effort: SpacesEffort, progress: Tell) -> SpacesPlan:
    """Solve the integer program over the choices `kept`; the plan of the least replayed time counts.

    The model lets a link work on any copy that is released; where the replay is later, the window that shows it is
    added, and the program solved again.

    Raises:
        NoPlacementFound: no choices keep every space within its capacity.
    """
    model = StepModel(program, safe=True, whole=True, kept=kept)
    found: list[tuple[int, SpacesPlan]] = []
    for turn in range(effort.whole):
        solution = model.solve(Limits(nodes=effort.nodes), "scip")
        if not solution.outcome.solved:
            break
        plan = plan_of(program, solution.chosen)
        found.append((replay(plan).step_ns, plan))
        progress(f"whole choices, round {turn + 1}: {found[-1][0] / 1e6:.3f} ms")
        window = late_window(program, solution)
        if window is None:
            break
        model.add_window(window)
    if found:
        return min(found, key=lambda pair: pair[0])[1]
    raise NoPlacementFound(
        capacity=program.problem.main.capacity_bytes,
        unit="bytes",
        effort=f"{effort.whole} rounds",
        best="none was found",
    )
