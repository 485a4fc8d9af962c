"""Experts of mixture-of-experts layers on GPUs: replicas per expert, a GPU per replica, and what makes that legal.

Slots are numbered GPU by GPU: GPU `g` holds the slots `g*k .. g*k+k-1` with `k = slots / gpus`, node `n` holds
`gpus / nodes` consecutive GPUs. An expert of load `w` with `c` replicas puts `w / c` on the GPU of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.errors import InconsistentCounts
from treadle.ir.layout.magnitudes import LARGEST


class Policy(Enum):
    """Where replicas may go."""

    HIERARCHICAL = "hierarchical"
    """Each expert group lives whole in one node, every node has equally many groups."""
    GLOBAL = "global"
    """Any replica on any GPU."""


@dataclass(frozen=True, slots=True)
class ExpertsProblem:
    """Loads per layer and expert (layers, experts), and the machine to place them on; the same in every layer.

    `sources`, where given, say from which node the tokens of each expert come (layers, nodes, experts): traffic between
    nodes is then the level after the highest load.
    """

    loads: tuple[tuple[float, ...], ...]
    slots: int
    gpus: int
    nodes: int
    groups: int
    policy: Policy
    sources: tuple[tuple[tuple[float, ...], ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.loads or not self.loads[0]:
            raise InvalidValue(message="there are no expert loads")
        if any(len(layer) != len(self.loads[0]) for layer in self.loads):
            raise InvalidValue(message="layers have different numbers of experts")
        if any(not 0 <= load <= LARGEST for layer in self.loads for load in layer):
            raise InvalidValue(message=f"an expert load is negative or beyond {LARGEST:g}")
        for name in ("slots", "gpus", "nodes", "groups"):
            if getattr(self, name) < 1:
                raise InvalidValue(message=f"`{name}` is {getattr(self, name)}")
        for text in self._mismatches():
            raise InconsistentCounts(what=text)
        if self.sources:
            self._check_sources()

    def _check_sources(self) -> None:
        shapes = {(len(layer), len(node)) for layer in self.sources for node in layer}
        if len(self.sources) != len(self.loads) or shapes != {(self.nodes, self.experts)}:
            raise InconsistentCounts(
                what=f"`sources` need, for {len(self.loads)} layers and {self.nodes} nodes, {self.experts} numbers each"
            )
        if any(not 0 <= tokens < float("inf") for layer in self.sources for node in layer for tokens in node):
            raise InvalidValue(message="the tokens of a source are negative or not finite")

    def _mismatches(self) -> list[str]:
        experts = len(self.loads[0])
        rules = [
            (self.slots < experts, f"{self.slots} slots cannot hold {experts} experts"),
            (self.slots % self.gpus > 0, f"{self.slots} slots do not divide evenly over {self.gpus} GPUs"),
            (self.gpus % self.nodes > 0, f"{self.gpus} GPUs do not divide evenly over {self.nodes} nodes"),
            (experts % self.groups > 0, f"{experts} experts do not divide evenly over {self.groups} groups"),
        ]
        if self.policy is Policy.HIERARCHICAL:
            rules.append((self.groups % self.nodes > 0, f"{self.groups} groups over {self.nodes} nodes"))
        return [text for wrong, text in rules if wrong]

    @property
    def experts(self) -> int:
        """Experts per layer."""
        return len(self.loads[0])

    @property
    def group_size(self) -> int:
        """Experts per group; group `i` holds consecutive experts."""
        return self.experts // self.groups


@dataclass(frozen=True, slots=True)
class ExpertsPlan:
    """The problem, and per layer the expert in each slot."""

    problem: ExpertsProblem
    slots: tuple[tuple[int, ...], ...]


def gpu_loads(problem: ExpertsProblem, layer: int, slots: tuple[int, ...]) -> tuple[Fraction, ...]:
    """Return the load of every GPU, exactly."""
    counts = [0] * problem.experts
    for expert in slots:
        counts[expert] += 1
    shares = [
        Fraction(load) / count if count else Fraction(0)
        for load, count in zip(problem.loads[layer], counts, strict=True)
    ]
    per_gpu = problem.slots // problem.gpus
    return tuple(
        sum((shares[expert] for expert in slots[gpu * per_gpu : (gpu + 1) * per_gpu]), Fraction(0))
        for gpu in range(problem.gpus)
    )


def check(plan: ExpertsPlan) -> list[Finding]:
    """Return every reason why the placement is illegal.

    Codes: TRD443 slots, TRD444 an expert without replica, TRD445 a group outside its node.
    """
    problem = plan.problem
    if len(plan.slots) != len(problem.loads):
        return [Finding("TRD443", "layers", "one placement per layer", str(len(problem.loads)), str(len(plan.slots)))]
    findings: list[Finding] = []
    for layer, slots in enumerate(plan.slots):
        findings += _check_layer(problem, layer, slots)
    return findings


def _check_layer(problem: ExpertsProblem, layer: int, slots: tuple[int, ...]) -> list[Finding]:
    where = f"layer {layer}"
    if len(slots) != problem.slots or any(not 0 <= expert < problem.experts for expert in slots):
        return [Finding("TRD443", where, "every slot holds one of the experts", str(problem.slots), str(len(slots)))]
    missing = sorted(set(range(problem.experts)) - set(slots))
    findings = [Finding("TRD444", f"{where}, expert {expert}", "the expert has no replica") for expert in missing]
    if problem.policy is Policy.HIERARCHICAL:
        findings += _check_groups(problem, where, slots)
    return findings


def _check_groups(problem: ExpertsProblem, where: str, slots: tuple[int, ...]) -> list[Finding]:
    per_node = problem.slots // problem.nodes
    homes: dict[int, set[int]] = {}
    for slot, expert in enumerate(slots):
        homes.setdefault(expert // problem.group_size, set()).add(slot // per_node)
    findings = [
        Finding("TRD445", f"{where}, group {group}", "the group is spread over nodes", "one node", str(sorted(nodes)))
        for group, nodes in homes.items()
        if len(nodes) > 1
    ]
    for node in range(problem.nodes):
        held = sum(nodes == {node} for nodes in homes.values())
        if held != problem.groups // problem.nodes and not findings:
            expected = str(problem.groups // problem.nodes)
            findings.append(
                Finding("TRD445", f"{where}, node {node}", "unequal numbers of groups", expected, str(held))
            )
    return findings
