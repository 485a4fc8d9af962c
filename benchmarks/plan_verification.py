"""Re-verification without a solver: seconds for each kind of serving and layout plan, and forged plans that it rejects.

A forged plan has one decision or one claim changed and is sealed again. A plain recomputation beside the checker says
whether the changed plan is still right (another slot of equal load, a weaker bound); the checker has to agree.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from fractions import Fraction
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import common
from treadle.cli.main import main as main_verb
from treadle.driver import layout as layouts
from treadle.driver.serve import plan_deployment
from treadle.frontends.layout_experts import ExpertOptions
from treadle.ir.diagnostics import TreadleError
from treadle.ir.plan import Plan, from_data, load, to_data, to_text
from treadle.solvers.buffers.solve import Effort
from treadle.verification.core import review_plan, verify

EXAMPLE = Path(__file__).parents[1] / "examples" / "llama-3.1-70b-h200"
SERVING = """
[serving]
roofline = true
pools = ["aggregated", "disaggregated", "length-separated", "split"]
gpus = [ { gpu = "h200", count = 32, cost_per_hour = 3.0 }, { gpu = "h100", count = 32, cost_per_hour = 2.0 } ]
speculation = { acceptance = 0.7, draft_cost = 0.05, lengths = [1, 2] }
prefill_shares = [0.3, 0.5]
classes = 2
"""


def main() -> None:
    """Plan one of each kind, time its verification, forge it many times."""
    chosen = common.arguments(__doc__ or "", forged={"type": int, "default": 200, "help": "forged plans of each kind"})
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        for name, plan in plans(Path(folder)):
            rows.append({"kind": name, **timed(plan, Path(folder)), **forge(name, plan, chosen.forged)})
            print(f"{name}: {rows[-1]}", flush=True)
        rows.append(bundle(Path(folder) / "bundle", chosen.forged // 4))
    common.table(list(rows[0]), [list(row.values()) for row in rows])
    figures = {
        "verify_s_max": max(row["verify_s"] for row in rows),
        "forged": sum(row["forged"] for row in rows),
        "wrong": sum(row["wrong"] for row in rows),
        "rejected": sum(row["rejected"] for row in rows),
        "disagreements": sum(row["disagreements"] for row in rows),
    }
    common.finish("plan_verification", figures, rows, chosen.json)


def plans(folder: Path) -> Iterator[tuple[str, Plan]]:
    """Yield a plan of each kind at a working size."""
    yield from layout_plans(folder, 8)
    yield "serving", plan_deployment(EXAMPLE / "deployment.toml", True, _quiet)[0]
    text = (EXAMPLE / "deployment.toml").read_text().split("[cluster]")[0].replace("40/s", "30/s")
    for name in ("config.json", "lengths.toml"):
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    goal = (
        text.replace('goal     = "fewest-gpus"', 'goal = "least-cost"').replace("600ms", "1s").replace("30ms", "50ms")
    )
    (folder / "deployment.toml").write_text(f'{goal}\n[cluster]\ngpu = "h200"\n{SERVING}')
    yield (
        "serving with classes, types, front",
        plan_deployment(folder / "deployment.toml", True, _quiet, pareto=True)[0],
    )


def layout_plans(folder: Path, scale: int) -> Iterator[tuple[str, Plan]]:
    """Yield offline placements: at the scale 8, of 256 experts, 200 adapters, 40 items, 3,000 requests, 300 buffers."""
    random = Random(1)

    def written(name: str, data: object) -> Path:
        file = folder / name
        file.write_text(data if isinstance(data, str) else json.dumps(data))
        return file

    for policy in ("global", "hierarchical"):
        loads = [[random.uniform(0.8, 1.2) / (e + 1) ** 0.6 for e in range(32 * scale)] for _ in range(4)]
        counts = {"slots": 36 * scale, "gpus": 4 * scale, "nodes": 4, "groups": 8, "policy": policy}
        experts = written("experts.json", {"loads": loads, **counts})
        yield f"experts {policy}", layouts.plan_experts(experts, ExpertOptions())
    yield "adapters", layouts.plan_adapters(written("adapters.json", _adapters(random, scale)), 0.5)
    yield "tiers", layouts.plan_tiers(written("tiers.json", _tiers(random, scale)), 500)
    yield "batch-order", layouts.plan_batch(written("batch.jsonl", _batch(random, scale)), 512, 0)
    buffers = written("buffers.csv", _buffers(random, scale))
    yield "buffers", layouts.plan_buffers(buffers, None, Effort(rounds=1), _quiet)


def _quiet(_: str) -> None:
    """Say nothing."""


def _adapters(random: Random, scale: int) -> dict[str, Any]:
    adapters = [
        {"name": f"a{i}", "load": random.randint(1, 100), "memory_bytes": 20, "current": f"r{i % 4}", "blocks": ["b"]}
        for i in range(25 * scale)
    ]
    replicas = [{"name": f"r{j}", "slots": 20, "memory_bytes": 900, "speed": 1.0} for j in range(2 * scale)]
    return {"adapters": adapters, "replicas": replicas, "blocks": [{"name": "b", "memory_bytes": 100}]}


def _tiers(random: Random, scale: int) -> dict[str, Any]:
    def options() -> list[dict[str, Any]]:
        large, small = random.randint(10, 100), random.randint(5, 10)
        return [{"size_bytes": large << 30, "loss": 0}, {"size_bytes": small << 30, "loss": random.random()}]

    memories = (
        ("hbm", 80, 3.8e13, 0.0),
        ("dram", 256, 2e11, 1e-6),
        ("cxl", 256, 1e11, 2e-6),
        ("ssd", 2560, 2e10, 1e-4),
    )
    return {
        "items": [{"name": f"i{i}", "options": options(), "reads_per_step": random.random()} for i in range(5 * scale)],
        "tiers": [
            {"name": name, "capacity_bytes": gib * scale << 30, "bandwidth_bytes_per_s": rate, "latency_s": late}
            for name, gib, rate, late in memories
        ],
        "loss_budget": 3,
    }


def _batch(random: Random, scale: int) -> str:
    trunks = [[random.randrange(10**6) for _ in range(random.randint(1, 20))] for _ in range(38 * scale)]
    ends = ([random.randrange(10**6) for _ in range(random.randint(0, 4))] for _ in range(375 * scale))
    return "\n".join(json.dumps({"hash_ids": random.choice(trunks) + end}) for end in ends)


def _buffers(random: Random, scale: int) -> str:
    lines = ["id,lower,upper,size"]
    for index in range(38 * scale):
        start = random.randrange(1000)
        lines.append(f"b{index},{start},{start + random.randint(5, 60)},{random.randint(1, 64) * 256}")
    return "\n".join(lines)


def bundle(folder: Path, count: int) -> dict[str, Any]:
    """Compile a bundle, time the verification of all its parts, and forge the serving plan in it."""
    arguments = ["compile", str(EXAMPLE), "-o", str(folder), "--no-compile", "--limit", "0.01", "--json", "--roofline"]
    with redirect_stdout(StringIO()):
        main_verb(arguments)
    started = time.perf_counter()
    review = verify(folder)
    seconds, file = time.perf_counter() - started, folder / "serving" / "plan.json"
    data = to_data(load(file))
    places = _grouped([path for path, _ in _leaves(data) if _decides("serving", path, data)])
    random, rejected = Random(0), 0
    for _ in range(count):
        changed = deepcopy(data)
        _change(changed, random.choice(random.choice(places)), random)
        try:
            file.write_text(to_text(from_data(changed, "plan.json").sealed()))
            rejected += bool(verify(folder).errors)
        except TreadleError:
            rejected += 1
    facts = {"kilobytes": sum(one.stat().st_size for one in folder.rglob("plan.json")) // 1024}
    claims = {"claims": review.rederived, "verify_s": round(seconds, 3), "forged": count, "wrong": count}
    return {"kind": "deployment bundle", **facts, **claims, "rejected": rejected, "disagreements": count - rejected}


def timed(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the time to read and review a plan, and how much it claims; the best of three."""
    sealed = plan.sealed()
    text = json.dumps(to_data(sealed))
    best, review = float("inf"), review_plan(sealed, None)
    for _ in range(3):
        _forget()
        started = time.perf_counter()
        review = review_plan(from_data(json.loads(text), "plan.json"), None)
        best = min(best, time.perf_counter() - started)
    if review.findings:
        raise RuntimeError(f"{plan.kind}: {review.findings[0]}")
    return {"kilobytes": len(text) // 1024, "claims": review.rederived, "verify_s": round(best, 3)}


def _forget() -> None:
    """Empty what earlier reviews left in caches: a verifier's process starts without."""
    from treadle.costmodels import engine_candidates, prompt_times
    from treadle.ir.layout import expert_bounds
    from treadle.ir.serving import tree

    for module in (engine_candidates, prompt_times, expert_bounds, tree):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


Steps = tuple[str | int, ...]


def forge(name: str, plan: Plan, count: int) -> dict[str, int]:
    """Return how many forged plans there were, how many are wrong, how many were rejected, and disagreements."""
    data = to_data(plan.sealed())
    places = [path for path, value in _leaves(data) if _decides(plan.kind, path, data) and not isinstance(value, bool)]
    random, wrong, rejected, disagreements = Random(0), 0, 0, 0
    for _ in range(count):
        changed = deepcopy(data)
        path = random.choice(random.choice(_grouped(places)))
        _change(changed, path, random)
        right = _still_right(plan.kind, changed, data)
        try:
            found = bool(review_plan(from_data(changed, "plan.json").sealed(), None).findings)
        except TreadleError:
            found = True
        wrong, rejected = wrong + (not right), rejected + found
        disagreements += found == right
        if found == right:
            print(f"{name}: {path} {'rejected' if found else 'passed'}")
    return {"forged": count, "wrong": wrong, "rejected": rejected, "disagreements": disagreements}


def _leaves(data: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        yield path, data
        return
    for key, value in items:
        yield from _leaves(value, (*path, key))


DECISIONS = {"slots", "homes", "options", "tiers", "order", "shared_blocks", "offsets_bytes"}
REPORTED = {"product", "cost_per_hour", "watts", "prompt_tokens", "output_tokens", "price", "nodes"}
"""Fields of a serving plan without a claim of their own: labels, prices another goal would use, lengths for people, and
GPUs beside those that are used, which make the fewest no fewer."""


def _decides(kind: str, path: Steps, data: dict[str, Any]) -> bool:
    """Whether a place is a decision or a figure that the plan claims."""
    if path[0] == "certificates":
        return path[-1] in ("value", "bound")
    if path[0] == "predictions":
        return path[-1] == "value"
    if path[0] != "body":
        return False
    if kind != "serving":
        return path[1] in DECISIONS
    return _claimed(path, data)


def _claimed(path: Steps, data: dict[str, Any]) -> bool:
    """Whether a place of a serving plan's body is claimed: pools, used engines, rates and pools of the front."""
    value: Any = data
    for step in path:
        value = value[step]
    if path[1] not in ("pools", "front") or REPORTED & set(path) or not value or not isinstance(value, int | float):
        return False
    engines = path[1:4] == ("pools", "problem", "engines")
    return "tree" not in path and (not engines or bool(data["body"]["pools"]["pools"]["counts"][path[4]]))


def _grouped(places: Sequence[Steps]) -> list[list[Steps]]:
    """Group places by part of the plan, so that many decisions do not crowd out few claims."""
    groups: dict[tuple[str | int, ...], list[Steps]] = {}
    for path in places:
        groups.setdefault(path[:2] if path[0] == "body" else path[:1], []).append(path)
    return list(groups.values())


def _change(data: Any, path: Steps, random: Random) -> None:
    for step in path[:-1]:
        data = data[step]
    value = data[path[-1]]
    whole = max(1, abs(value) // 10) * random.choice((1, 1, 2, -1)) if isinstance(value, int) else 0
    data[path[-1]] = value + (whole or value * 0.1 or 1.0)


def _still_right(kind: str, changed: dict[str, Any], data: dict[str, Any]) -> bool:
    """Whether a changed plan is legal, has the figures it claims, and claims no more than was proven before."""
    if kind == "serving":
        return False  # only places that a claim rests on are changed
    body, (certificate,) = changed["body"], changed["certificates"]
    figures = FIGURES[kind](body["problem"], body)
    if figures is None:
        return False
    levels = zip(certificate["levels"], data["certificates"][0]["levels"], figures, strict=True)
    for level, before, figure in levels:
        same = abs(level["value"] - figure) <= 1e-9 * max(1.0, abs(figure))
        sign = 1 if level.get("maximize") else -1
        honest = sign * (before["bound"] - level["bound"]) <= 1e-9 * max(1.0, abs(level["value"]))
        # A plan worse than the best known one may be right, and is no longer what `optimal` says.
        least = level.get("status") != "optimal" or abs(level["value"] - level["bound"]) <= 1e-9 * max(1.0, figure)
        if not (same and honest and least):
            return False
    return all(
        abs(one["value"] - figure) <= 1e-9 * max(1.0, abs(figure))
        for one, figure in zip(changed["predictions"], figures, strict=True)
    )


Figures = Callable[[dict[str, Any], dict[str, Any]], "list[float] | None"]


def _experts(problem: dict[str, Any], body: dict[str, Any]) -> list[float] | None:
    found: list[float] = []
    gpus, size = problem["gpus"], len(problem["loads"][0]) // problem["groups"]
    for loads, slots in zip(problem["loads"], body["slots"], strict=True):
        if set(slots) != set(range(len(loads))):
            return None
        per, node = len(slots) // gpus, len(slots) // problem["nodes"]
        homes = {(expert // size, slot // node) for slot, expert in enumerate(slots)}
        if problem["policy"] == "hierarchical" and len(homes) != problem["groups"]:
            return None
        share = [load / slots.count(expert) for expert, load in enumerate(loads)]
        found.append(max(sum(share[e] for e in slots[gpu * per : (gpu + 1) * per]) for gpu in range(gpus)))
    return found


def _adapter_figures(problem: dict[str, Any], body: dict[str, Any]) -> list[float] | None:
    peak, moves = 0.0, 0
    if any(not 0 <= home < len(problem["replicas"]) for home in body["homes"]):
        return None
    for position, replica in enumerate(problem["replicas"]):
        held = [a for a, home in zip(problem["adapters"], body["homes"], strict=True) if home == position]
        blocks = {name for one in held for name in one["blocks"]}
        size = sum(one["memory_bytes"] for one in held)
        size += sum(block["memory_bytes"] for block in problem["blocks"] if block["name"] in blocks)
        if len(held) > replica["slots"] or size > replica["memory_bytes"]:
            return None
        peak = max(peak, sum(one["load"] for one in held))
        moves += sum(one["current"] != replica["name"] for one in held)
    return [peak, moves]


def _tier_figures(problem: dict[str, Any], body: dict[str, Any]) -> list[float] | None:
    used, loss, time_s = [0] * len(problem["tiers"]), Fraction(0), Fraction(0)
    for item, option, tier in zip(problem["items"], body["options"], body["tiers"], strict=True):
        if not (0 <= option < len(item["options"]) and 0 <= tier < len(used)):
            return None
        size, place = item["options"][option]["size_bytes"], problem["tiers"][tier]
        used[tier] += size
        loss += Fraction(item["options"][option].get("loss", 0))
        once = Fraction(size) / Fraction(place["bandwidth_bytes_per_s"]) + Fraction(place.get("latency_s", 0))
        time_s += Fraction(item["reads_per_step"]) * once
    full = any(size > tier["capacity_bytes"] for size, tier in zip(used, problem["tiers"], strict=True))
    return None if full or loss > Fraction(problem["loss_budget"]) else [float(time_s * 1_000_000)]


def _batch_figures(problem: dict[str, Any], body: dict[str, Any]) -> list[float] | None:
    paths, computed, kept = problem["requests"], 0, set[tuple[int, ...]]()
    if sorted(body["order"]) != list(range(len(paths))):
        return None
    for index in body["order"]:
        path = {tuple(paths[index][:end]) for end in range(1, len(paths[index]) + 1)}
        computed, kept = computed + len(path - kept), path
    groups: dict[tuple[int, ...], int] = {}
    for path, shared in zip(paths, body["shared_blocks"], strict=True):
        if not 0 <= shared <= len(path):
            return None
        groups[tuple(path[:shared])] = groups.get(tuple(path[:shared]), 0) + 1
    return [computed, sum((members - 1) * len(prefix) for prefix, members in groups.items())]


def _buffer_figures(problem: dict[str, Any], body: dict[str, Any]) -> list[float] | None:
    placed = list(zip(problem["buffers"], body["offsets_bytes"], strict=True))
    for index, (one, low) in enumerate(placed):
        for other, below in placed[:index]:
            together = one["lower"] < other["upper"] and other["lower"] < one["upper"]
            if together and low < below + other["size_bytes"] and below < low + one["size_bytes"]:
                return None
    if min(offset for _, offset in placed) < 0:
        return None
    return [max(offset + buffer["size_bytes"] for buffer, offset in placed)]


FIGURES: dict[str, Figures] = {
    "experts": _experts,
    "adapters": _adapter_figures,
    "tiers": _tier_figures,
    "batch-order": _batch_figures,
    "buffers": _buffer_figures,
}
"""Figures of a plan's levels, computed once more and plainly; None where the plan is not legal."""


if __name__ == "__main__":
    main()
