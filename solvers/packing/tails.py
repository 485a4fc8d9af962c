"""The last level of the objective in the CP-SAT model: nodes, cost, stranded GPUs, or balance."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from treadle.ir.cluster.objective import Tail, gpu_needs

if TYPE_CHECKING:
    from treadle.solvers.packing.model import PackingModel

Expression = cp_model.LinearExpr | int


def tail_level(packing: PackingModel) -> Expression:
    """Return the expression of the model's last level; nodes that are not free count as constants do (not at all)."""
    if packing.tail is Tail.STRANDED:
        return _stranded(packing)
    if packing.tail is Tail.BALANCE:
        return _balance(packing)
    return _used_nodes(packing)


def _by_node(packing: PackingModel) -> dict[int, list[tuple[int, cp_model.IntVar]]]:
    found: dict[int, list[tuple[int, cp_model.IntVar]]] = defaultdict(list)
    for cells in (packing.stays, packing.arrives):
        for (g, n), variable in cells.items():
            found[n].append((g, variable))
    return found


def _used_nodes(packing: PackingModel) -> Expression:
    terms: list[Expression] = []
    cluster = packing.problem.cluster
    pinned = {pod.node for pod in cluster.pods if pod.pinned}
    flags: dict[object, list[cp_model.IntVar]] = defaultdict(list)
    for n, inside in sorted(_by_node(packing).items()):
        node = cluster.nodes[n]
        price = 1 if packing.tail is Tail.NODES else node.cost
        if n in pinned or not price:
            continue
        flag = packing.model.new_bool_var(f"u{n}")
        for _, variable in inside:
            packing.model.add(variable == 0).only_enforce_if(~flag)
        terms.append(price * flag)
        if node.optional and len(packing.free) == len(cluster.nodes):
            flags[str((node.capacity, node.taints, node.cost, node.labels.get(_OFFER)))].append(flag)
    for alike in flags.values():
        for first, second in pairwise(alike):
            packing.model.add(first >= second)
    return sum(terms)


_OFFER = "treadle.dev/offer"
"""Label of the nodes of one offer: they differ in nothing but their names."""


def _rest(packing: PackingModel, n: int, inside: list[tuple[int, cp_model.IntVar]], name: str) -> Expression | None:
    """Return what is free of a resource of a node, None if no pod asks for it."""
    if name not in packing.problem.resources:
        return None
    r = packing.problem.resources.index(name)
    demands = [packing.problem.groups[g].demand[r] for g, _ in inside]
    return packing.problem.capacity[n][r] - cp_model.LinearExpr.weighted_sum([v for _, v in inside], demands)


def _stranded(packing: PackingModel) -> Expression:
    by_node, terms = _by_node(packing), list[Expression]()
    for name, least in gpu_needs(packing.problem.cluster).items():
        for n in packing.free:
            there = packing.problem.cluster.nodes[n].capacity.get(name, 0)
            rest = _rest(packing, n, by_node.get(n, []), name)
            if not there or rest is None:
                continue
            open_to = packing.model.new_bool_var(f"o{n}")
            for other, amount in least.items():
                room = _rest(packing, n, by_node.get(n, []), other)
                if room is not None:
                    packing.model.add(room >= amount).only_enforce_if(open_to)
            stranded = packing.model.new_int_var(0, there, f"x{n}")
            packing.model.add(stranded >= rest - there * open_to)
            terms.append(stranded)
    return sum(terms)


def _balance(packing: PackingModel) -> Expression:
    by_node = _by_node(packing)
    share = packing.model.new_int_var(0, 1000, "balance")
    for n in packing.free:
        for name in ("cpu", "memory"):
            there = packing.problem.cluster.nodes[n].capacity.get(name, 0)
            rest = _rest(packing, n, by_node.get(n, []), name)
            if there and rest is not None:
                packing.model.add(1000 * (there - rest) <= there * share)
    return share
