"""The parallel planner against brute force on random small problems over the whole space of choices.

Each case is searched and certified; then every legal choice is solved and replayed without any bound, every 1F1B and
ZB-H1 layout is replayed, the plan is reviewed, and changed plans must be rejected.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common import arguments, finish, table
from treadle.costmodels.training_bounds import Quick, says_less
from treadle.costmodels.training_group_costs import holds_longest
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.costmodels.training_tails import best_with_tails
from treadle.driver.parallel import Options, plan_parallel
from treadle.frontends.training import TrainingProblem
from treadle.ir.plan import Plan
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import Experts, Product, Shard, TrainingModel, dense_layer
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.space import candidates
from treadle.ir.training.spec import (
    ContextMode,
    Offload,
    Order,
    Pipeline,
    Recompute,
    SearchSpace,
    Sharding,
    TrainingSpec,
)
from treadle.solvers.parallel.explain import NoPlanFits
from treadle.verification.parallel import review_decision, review_enumeration

Option = TypeVar("Option")
_HIDDEN = 1024
_MIXED = 0.25
"""Share of the clusters that have two GPU types."""
_FABRICS = 0.5
"""Share of the clusters of several equal nodes that have an oversubscribed spine."""
_LENGTHS = 0.3
"""Share of the jobs whose sequences have lengths of their own."""


def random_problem(chosen: random.Random) -> TrainingProblem:
    """Return a small problem: 2 to 8 GPUs, 2 to 6 layers, some of the options."""
    dense = dense_layer("block", _HIDDEN, 16, 4, 4 * _HIDDEN, gated=True, bias=False, dropout=False)
    products = (Product("gate_up", _HIDDEN, 2 * _HIDDEN, Shard.COLUMN), Product("down", _HIDDEN, _HIDDEN, Shard.ROW))
    routed = replace(dense, name="experts", experts=Experts(8, 2, products), expert_saved=5 * _HIDDEN)
    layers = chosen.randint(2, 6)
    first = chosen.randint(1, layers)
    order = tuple(item for item in (("block", first), ("experts", layers - first)) if item[1])
    predictors = chosen.randint(0, 1)
    model = TrainingModel("random", _HIDDEN, 32000, (dense, routed)[: len(order)], order, predictors=predictors)
    gpus = chosen.choice([2, 4, 8])
    network, host = chosen.choice([1.0, 10.0, 50.0]), chosen.choice([0.0, 0.05, 64.0])
    per_node = min(gpus, chosen.choice([2, 4]))
    groups: tuple[NodeGroup, ...] = (NodeGroup("a100", gpus // per_node, per_node),)
    if gpus > 2 and chosen.random() < _MIXED:
        groups = NodeGroup("a100", 1, gpus // 2), NodeGroup("h100", 1, gpus // 2)
    cluster = ClusterTopology(groups, network, host_gbytes=host, **fabric(chosen, groups))
    space = SearchSpace(
        zero=chosen.choice([(0,), (1,), (0, 1), (1, 3), (2,)]),
        recompute=some(chosen, tuple(Recompute)),
        schedule=chosen.choice([tuple(Pipeline), tuple(Pipeline)[:2], tuple(Pipeline)[2:]]),
        sharding=some(chosen, tuple(Sharding)),
        context_mode=some(chosen, tuple(ContextMode)),
        offload=some(chosen, tuple(Offload)),
        overlap_tensor=chosen.choice([(False,), (True, False)]),
        order=some(chosen, tuple(Order)),
        most_virtual=3,
        most_micro_batch=4,
    )
    batch, reserve = chosen.choice([4, 6, 8, 12, 16]), chosen.choice([0.06, 0.06, 0.97])
    overlap, lengths = chosen.random() < 0.5, mixed_lengths(chosen, batch)
    spec = TrainingSpec(batch, 1024, overlap_gradients=overlap, memory_reserve=reserve, search=space, lengths=lengths)
    return TrainingProblem(model, cluster, spec, ())


def fabric(chosen: random.Random, groups: tuple[NodeGroup, ...]) -> dict[str, Any]:
    """Return leaf switches of some nodes, or of one GPU of each, under a spine that takes less than they send."""
    if len(groups) != 1 or groups[0].nodes == 1 or chosen.random() > _FABRICS:
        return {}
    rails = chosen.random() < 0.5
    return {"rails": rails, "leaf_nodes": 0 if rails else 1, "spine_oversubscription": chosen.choice([2.0, 7.0])}


def mixed_lengths(chosen: random.Random, batch: int) -> tuple[int, ...]:
    """Return a batch's sequences of mixed lengths, some with one that few plans hold; or none."""
    if chosen.random() > _LENGTHS:
        return ()
    longest = chosen.choice([2048, 8192, 2**20])
    drawn = (round(chosen.lognormvariate(6.5, 1.2)) for _ in range(batch))
    return (longest, *(min(longest, max(16, length)) for length in drawn))


def some(chosen: random.Random, values: Sequence[Option]) -> tuple[Option, ...]:
    """Return the plainest value and up to two others."""
    return values[0], *chosen.sample(values[1:], chosen.randint(0, min(2, len(values) - 1)))


def contiguous(layers: int, stages: int) -> Iterator[StageLayout]:
    """Yield all splits with at least one layer on every stage but the first and the last."""
    for cuts in combinations(range(layers + stages - 1), stages - 1):
        counts = tuple(b - a - 1 for a, b in pairwise((-1, *cuts, layers + stages - 1)))
        if min(counts[1:-1], default=1) > 0:
            yield StageLayout(counts)


def every_layout(layers: int, degrees: Degrees, allowed: tuple[Recompute, ...]) -> Iterator[StageLayout]:
    """Yield all splits, with every choice of layers that run again where stages have their own number of them."""
    for layout in contiguous(layers, degrees.pipeline):
        if degrees.recompute is not Recompute.STAGES:
            yield layout
            continue
        for again in product(*(range(count + 1) for count in layout.layers)):
            if any(again) or Recompute.NONE not in allowed:
                yield StageLayout(layout.layers, again)


def brute_force(setting: Setting) -> tuple[int, float, float]:
    """Return the number of choices, the best with solved layouts, and the best over all layouts."""
    timer, total = LayerTimer(setting), 0
    quick, solved, anywhere = Quick(setting, timer), math.inf, math.inf
    for degrees in candidates(setting.model, setting.cluster, setting.spec):
        total += 1
        for option in choices(setting, degrees, quick):
            layout = option.layout
            assert layout is not None
            if degrees.virtual > 1:
                if not says_less(setting, degrees, layout):
                    solved = min(solved, held_us(setting, degrees, replay(setting, degrees, layout, timer)))
                continue
            if degrees.pipeline > 1:
                layout = best_with_tails(setting, degrees, timer, layout, math.inf).layout
                assert layout is not None
            if not says_less(setting, degrees, layout):
                solved = min(solved, held_us(setting, degrees, replay(setting, degrees, layout, timer)))
            for other in every_layout(setting.model.layers, degrees, setting.spec.search.recompute):
                played = replay(setting, degrees, other, timer)
                if fits(setting, degrees, played):
                    anywhere = min(anywhere, held_us(setting, degrees, played))
    return total, solved, min(anywhere, solved)


def held_us(setting: Setting, degrees: Degrees, played: Replay) -> float:
    """Return a replayed step; infinite where no group of ranks holds the longest sequence."""
    return played.step_us if holds_longest(setting, degrees, played.stages) else math.inf


def fits(setting: Setting, degrees: Degrees, played: Replay) -> bool:
    """Whether a replayed plan is within both memories of every stage."""
    groups, host = stage_groups(setting.cluster, degrees), setting.cluster.host_gbytes * 1e9
    gpus = [setting.parts[group][0] for group in groups] or [setting.gpu] * degrees.pipeline
    rooms = [gpu.memory_bytes * (1 - setting.spec.memory_reserve) for gpu in gpus]
    pairs = zip(played.stages, rooms, strict=True)
    return all(stage.memory_bytes <= room and stage.host_bytes <= host for stage, room in pairs)


def changed(plan: Plan) -> Iterator[Plan]:
    """Yield forged plans: another layout, microbatch, claimed time, bound, stage figure, count of candidates."""
    body = plan.body
    counts = body.layout.layers
    yield replace(plan, body=replace(body, layout=StageLayout((*counts[:-1], counts[-1] + 1))))
    batch = body.degrees.micro_batch * 3
    yield replace(plan, body=replace(body, degrees=replace(body.degrees, micro_batch=batch)))
    (certificate,) = plan.certificates
    first, second, *others = certificate.levels
    faster = replace(first, value=first.value * 0.98, bound=first.value * 0.98)
    yield replace(plan, certificates=(replace(certificate, levels=(faster, second, *others)),))
    counted = replace(first, evidence={**first.evidence, "candidates": first.evidence["candidates"] + 1})
    yield replace(plan, certificates=(replace(certificate, levels=(counted, second, *others)),))
    stage = replace(body.stages[0], state_bytes=body.stages[0].state_bytes + 1)
    yield replace(plan, body=replace(body, stages=(stage, *body.stages[1:])))
    for kept in body.grouped[:1]:
        shorter = replace(kept, rounds=kept.rounds[:-1])
        yield replace(plan, body=replace(body, grouped=(shorter, *body.grouped[1:])))
        sooner = replace(kept, step_time_us=kept.step_time_us * 0.98)
        yield replace(plan, body=replace(body, grouped=(sooner, *body.grouped[1:])))


def findings_of(setting: Setting, plan: Plan) -> int:
    """Return how many findings a review has."""
    found = review_decision(plan)
    return len(found) or len(review_enumeration(setting, plan)[1])


def measure(number: int) -> dict[str, Any]:
    """Solve, check and forge one case."""
    problem = random_problem(random.Random(number))
    setting = setting_of(problem.model, problem.cluster, problem.spec)
    total, solved, anywhere = brute_force(setting)
    types, spine = max(1, len(setting.parts)), problem.cluster.spine_oversubscription > 1
    try:
        plan = plan_parallel(problem, Options(2 if problem.spec.lengths else 0))
    except NoPlanFits:
        return {
            "case": number,
            "candidates": total,
            "types": types,
            "spine": spine,
            "lengths": bool(problem.spec.lengths),
            "equal": solved == math.inf,
            "plan": "nothing fits",
        }
    closed, wide = plan.certificates[0].levels[:2]
    played = replay(setting, plan.body.degrees, plan.body.layout)
    forged = [findings_of(setting, other) > 0 for other in changed(plan)]
    return {
        "case": number,
        "candidates": total,
        "types": types,
        "spine": spine,
        "lengths": bool(problem.spec.lengths),
        "plan": plan.body.degrees.text(),
        "equal": closed.bound == solved and (closed.value == solved or bool(problem.spec.lengths)),
        "bound_holds": wide.bound is not None and wide.bound <= anywhere * (1 + 1e-9),
        "any_layout_equal": math.isclose(closed.bound or 0.0, anywhere, rel_tol=1e-9),
        "replay_error": abs(played.step_us - closed.value) / closed.value,
        "legal": findings_of(setting, plan) == 0,
        "forged": len(forged),
        "forged_rejected": sum(forged),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all cases."""
    planned = [row for row in rows if "legal" in row]
    return {
        "cases": len(rows),
        "nothing_fits": len(rows) - len(planned),
        "candidates": sum(row["candidates"] for row in rows),
        "equal_to_brute_force": sum(row["equal"] for row in rows) / len(rows),
        "bound_over_all_layouts_holds": sum(row["bound_holds"] for row in planned) / len(planned),
        "best_over_all_layouts": sum(row["any_layout_equal"] for row in planned) / len(planned),
        "largest_replay_error": max(row["replay_error"] for row in planned),
        "legal": sum(row["legal"] for row in planned) / len(planned),
        "of_an_oversubscribed_spine": sum(row["spine"] for row in rows),
        "of_mixed_lengths": sum(row["lengths"] for row in rows),
        "of_two_types": sum(row["types"] > 1 for row in rows),
        "of_stages_with_their_own_recomputation": sum("recompute=stages" in str(row["plan"]) for row in rows),
        "forged": sum(row["forged"] for row in planned),
        "forged_rejected": sum(row["forged_rejected"] for row in planned),
    }


def done(path: Path | None) -> list[dict[str, Any]]:
    """Return the cases that an earlier run finished."""
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Print and write the figures."""
    chosen = arguments(
        "the parallel planner against brute force",
        cases={"type": int, "default": 500, "help": "random problems (default 500)"},
        jobs={"type": int, "default": 2, "help": "processes (default 2)"},
        resume={"type": Path, "default": None, "help": "file of cases done, one a line: read, and added to"},
    )
    rows = [row for row in done(chosen.resume) if row["case"] < chosen.cases]
    known = {row["case"] for row in rows}
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for row in pool.map(measure, [case for case in range(chosen.cases) if case not in known], chunksize=4):
            rows.append(row)
            if chosen.resume is not None:
                with chosen.resume.open("a", encoding="utf-8") as kept:
                    kept.write(json.dumps(row) + "\n")
    rows.sort(key=lambda row: row["case"])
    figures = summary(rows)
    table(("figure", "value"), [(name, value) for name, value in figures.items()])
    finish("parallel_oracle", figures, rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
