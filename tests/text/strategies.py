"""Random objects of every type that the text form writes as a document."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import Finding, Severity
from treadle.ir.machine import Basis, Figure, Machine
from treadle.ir.model import (
    Attention,
    Gemm,
    GroupedGemm,
    Latent,
    Layer,
    LayerGroup,
    ModelGraph,
    Operator,
    OperatorKind,
    Recurrence,
    Role,
)
from treadle.ir.plan import Artifact, Input, Plan, Prediction
from treadle.ir.symbolic import Expression, dimension, parse
from treadle.ir.tile.kernel import Compiled, KernelBody, KernelPlan
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.program import Invariant, Memory, Operand, OperationKind, Tile, TileOperation, TileProgram
from treadle.ir.tile.schedule import Schedule
from treadle.ir.warp import program as warp
from treadle.ir.workload import (
    FAMILIES,
    ClusterRequest,
    Deployment,
    Goal,
    HotLoop,
    LengthQuantiles,
    Metric,
    Phase,
    QuantilePoint,
    Request,
    ServiceLevel,
    Workload,
)

KEYWORDS = (
    "true",
    "null",
    "delay",
    "distance",
    "hold",
    "bound",
    "none",
    "unlimited",
    "to",
    "x",
    "p",
    "1",
    "a.b",
    "a b",
)
names = st.sampled_from(KEYWORDS) | st.text(max_size=8) | st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
filled = names.filter(bool)
counts = st.integers(1, 2**70)
sizes = st.integers(0, 2**40)
floats = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(names, json_data, max_size=3)


def tuples(items: st.SearchStrategy[Any], most: int = 3, least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def closed_level(name: str, value: float, proof: ProofKind, evidence: dict[str, Any]) -> Level:
    return Level(name, "cycles", value, value, Status.OPTIMAL, proof, evidence)


levels = st.builds(
    Level, names, names, floats, st.none(), st.just(Status.FEASIBLE), st.just(ProofKind.NONE), records, st.booleans()
) | st.builds(
    closed_level,
    names,
    floats,
    st.sampled_from([kind for kind in ProofKind if kind is not ProofKind.NONE]),
    records,
)
certificates = st.builds(Certificate, names, names, tuples(levels))
findings = st.builds(Finding, names, names, names, names, names, st.sampled_from(Severity))
figures = st.builds(Figure, names, positive, filled, filled, filled, st.sampled_from(Basis))
machines = st.builds(
    Machine,
    names,
    names,
    names,
    names,
    st.lists(figures, max_size=3, unique_by=lambda figure: figure.name).map(tuple),
    tuples(names),
)


@st.composite
def loops(draw: st.DrawFn) -> Loop:
    unit_names = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    operation_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    memories = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    some = st.sampled_from(operation_names)
    readers = tuples(st.builds(Reader, some, sizes, st.integers(0, 3)), least=1)
    rings = st.builds(Ring, names, st.sampled_from(memories), sizes, some, readers, counts)
    return Loop(
        draw(names),
        tuple(Unit(name, draw(st.none() | counts)) for name in unit_names),
        tuple(Operation(name, draw(st.sampled_from(unit_names)), draw(sizes), draw(sizes)) for name in operation_names),
        draw(tuples(st.builds(Dependence, some, some, st.integers(-5, 9), st.integers(1, 4)))),
        tuple(draw(st.lists(rings, max_size=2, unique_by=lambda ring: ring.name))),
        tuple(Capacity(memory, draw(sizes), draw(sizes)) for memory in memories),
    )


schedules = st.builds(
    Schedule,
    names,
    counts,
    st.dictionaries(names, st.integers(), max_size=4),
    st.integers(),
    st.dictionaries(names, sizes, max_size=2),
)
tiles = st.builds(
    Tile, tuples(counts), st.sampled_from(["float32", "bfloat16", "int4", "bool"]), st.sampled_from(Memory)
)


@st.composite
def programs(draw: st.DrawFn) -> TileProgram:
    values = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    split = draw(st.integers(0, len(values) - 1))
    invariants = tuple(Invariant(name, draw(tiles)) for name in values[:split])
    operations: list[TileOperation] = []
    for position, name in enumerate(values[split:], split):
        earlier = st.builds(Operand, st.sampled_from(values[:position])) if position else st.nothing()
        carried = st.builds(Operand, st.sampled_from(values), st.integers(1, 3))
        operands = draw(tuples(earlier | carried, most=4, least=2))
        kind, work = draw(st.sampled_from(OperationKind)), draw(st.integers(1, 9) | positive)
        depth = draw(counts) if kind is OperationKind.MMA else 0
        operations.append(TileOperation(name, kind, operands, draw(tiles), depth, work, draw(names)))
    shape = st.dictionaries(names, st.integers(), max_size=3)
    options = st.dictionaries(names, names | st.integers() | st.booleans(), max_size=3)
    return TileProgram(
        draw(names), draw(names), tuple(operations), draw(counts), draw(counts),
        draw(shape), draw(shape), invariants, draw(counts), draw(options),
    )  # fmt: skip


predictions = st.builds(Prediction, names, floats, names)
compiled = st.builds(
    Compiled,
    target=names,
    compiler=names,
    binary=names,
    registers=sizes,
    spill_bytes=sizes,
    smem_bytes=sizes,
)
kernels = st.builds(
    KernelPlan,
    name=names,
    loop=loops(),
    schedule=schedules,
    certificate=certificates,
    program=st.none() | programs(),
    predictions=tuples(predictions),
    source=filled,
    compiled=st.lists(compiled, max_size=2, unique_by=lambda binary: binary.binary).map(tuple),
    calls=counts,
    phase=names,
)
bodies = st.builds(
    KernelBody,
    st.none() | machines,
    st.lists(kernels, min_size=1, max_size=2, unique_by=lambda kernel: kernel.name).map(tuple),
)
plans = st.builds(
    Plan,
    kind=st.just("kernel"),
    inputs=st.dictionaries(names.filter(lambda n: " " not in n), st.tuples(names, names), max_size=2).map(
        lambda found: tuple(Input(role, path, digest) for role, (path, digest) in found.items())
    ),
    options=records,
    versions=st.dictionaries(names, names, max_size=2),
    body=bodies,
    certificates=st.lists(certificates, max_size=2, unique_by=lambda c: c.problem).map(tuple),
    predictions=st.lists(predictions, max_size=3, unique_by=lambda p: p.name).map(tuple),
    artifacts=st.lists(st.builds(Artifact, names, names), max_size=3, unique_by=lambda a: a.path).map(tuple),
    parts=st.lists(names, max_size=2, unique=True).map(tuple),
).flatmap(lambda plan: st.sampled_from([plan, plan.sealed()]))
EXPRESSIONS = ("0", "4096", "batch*seq", "batch*seq*kv/2 + 7", "ceil(kv/128)*batch", "Min(kv, 4096)")


def per_sequence(factor: int, constant: int) -> Expression:
    return factor * dimension("batch") + constant


expressions = st.sampled_from(EXPRESSIONS).map(parse) | st.builds(per_sequence, sizes, sizes)
small = st.integers(1, 2**20)
latents = st.builds(Latent, small, small, small, small)


def grouped_attention(kv_heads: int, group: int, sizes: tuple[int, int, int], latent: Latent | None) -> Attention:
    return Attention(kv_heads * group, kv_heads, sizes[0], sizes[1], sizes[2], latent=latent)


attentions = st.builds(grouped_attention, small, small, st.tuples(small, small, small), st.none() | latents)
details = st.one_of(
    st.builds(Gemm, expressions, small, small, small),
    st.builds(GroupedGemm, expressions, small, small, small, small),
    attentions,
    st.builds(Recurrence, small, small, small, small, names),
)
operators = st.builds(
    Operator,
    names.filter(lambda name: name not in ("input", "encoder")),
    st.sampled_from(OperatorKind),
    st.just(("input",)) | st.just(()),
    tuples(expressions),
    sizes,
    st.just(0) | st.none(),
    st.sampled_from(["bfloat16", "mxfp4"]),
    expressions,
    expressions,
    expressions,
    expressions,
    st.none() | st.sampled_from(Phase),
    st.none() | details,
)


@st.composite
def models(draw: st.DrawFn) -> ModelGraph:
    layer_names = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    by_name = st.lists(operators, min_size=1, max_size=3, unique_by=lambda operator: operator.name).map(tuple)
    layers = tuple(Layer(name, draw(by_name), draw(st.sampled_from(Role))) for name in layer_names)
    stack = tuple(LayerGroup(name, draw(small)) for name in layer_names)
    return ModelGraph(
        draw(names), draw(names), "bfloat16", draw(small), draw(small), layers, stack,
        draw(st.integers(0, 10**6)), "float8_e4m3", draw(st.booleans()), draw(tuples(names)),
    )  # fmt: skip


@st.composite
def hot_loops(draw: st.DrawFn) -> HotLoop:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    shape = {key: draw(small) for key in FAMILIES[family]}
    return HotLoop(draw(names), family, shape, draw(names), draw(st.sampled_from(Phase)), draw(small), ("a.b",))


quantiles = st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True).map(
    lambda shares: tuple(QuantilePoint(share, 1 + index, 7 * index + 1) for index, share in enumerate(sorted(shares)))
)
workloads = st.builds(
    Workload,
    st.builds(LengthQuantiles, quantiles, names, names, names, sizes),
    st.none() | st.floats(0.001, 1e6),
    tuples(st.builds(Request, positive, small, small, tuples(st.integers()))),
    names,
)
deployments = st.builds(
    Deployment,
    names,
    names,
    workloads,
    st.builds(ClusterRequest, names, st.none() | small, st.none() | small, names, names),
    tuples(st.builds(ServiceLevel, st.sampled_from(Metric), st.floats(0.5, 100), st.floats(0.001, 1e3))),
    st.sampled_from(Goal),
    names,
    names,
    small,
)

names_or_none = st.just("") | names
instructions = st.builds(
    warp.Instruction,
    st.sampled_from(warp.Action),
    names,
    small,
    small,
    tuples(st.builds(warp.Source, names, st.sampled_from(warp.Role), small, names_or_none, st.booleans())),
    names_or_none,
    st.just(True),
    names_or_none,
    names_or_none,
    small,
)
steps = tuples(instructions)


@st.composite
def warp_programs(draw: st.DrawFn) -> warp.WarpProgram:
    """Any lists of instructions over unrelated buffers and channels: the text form does not ask what they mean."""
    ahead = draw(st.integers(0, 2))
    lists = st.tuples(*[steps] * ahead)
    group = warp.WarpGroup(draw(names), 4, draw(small), draw(lists), draw(steps), draw(lists), draw(steps))
    buffer = warp.Buffer(draw(names), draw(st.sampled_from(Memory)), draw(small), draw(small))
    one_way, transaction = draw(st.booleans()), draw(st.booleans())
    channel = warp.Channel(draw(names), buffer.name, 0, (draw(small),), one_way, draw(small), transaction)
    queue = warp.Queue(draw(names), draw(small), draw(st.booleans()))
    turn = warp.Turn(draw(names), draw(names), draw(tuples(small)))
    return warp.WarpProgram(draw(names), (group,), (buffer,), (channel,), (queue,), (turn,))


BY_WORD: dict[str, st.SearchStrategy[Any]] = {
    "certificate": certificates,
    "deployment": deployments,
    "finding": findings,
    "hot_loop": hot_loops(),
    "kernel": kernels,
    "loop": loops(),
    "machine": machines,
    "model": models(),
    "plan": plans,
    "program": programs(),
    "schedule": schedules,
    "warps": warp_programs(),
}
"""A strategy for every word in `treadle.ir.text.forms.DOCUMENTS`."""
