"""A Triton kernel's hot loop -> a tile program.

What is told: loads, products, reductions, exponentials, conversions and arithmetic on what was loaded, with what one
iteration hands to the next; masks that are computed in the loop. What is not: addresses and masks of loads, which are
computed once per vector of an access, and everything outside the loop. Chains of arithmetic on one shape are one
operation, as the compiler keeps them in registers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from treadle.frontends.programs.errors import InvalidExtent, UnknownShapeKey
from treadle.frontends.ttir import operations as known
from treadle.frontends.ttir.errors import NoHotLoop, UnsupportedIr
from treadle.frontends.ttir.scalars import Scalars
from treadle.frontends.ttir.text import Kernel, Op
from treadle.ir.diagnostics import closest
from treadle.ir.tile.program import Invariant, Memory, Operand, OperationKind, Tile, TileOperation, TileProgram

_TENSOR = re.compile(r"tensor<((?:\d+x)*)([!\w.<>]+?)>$")
_DTYPES = {
    "f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16", "f8E4M3FN": "float8_e4m3",
    "f8E5M2": "float8_e5m2", "i32": "int32", "i8": "int8", "i1": "bool",
}  # fmt: skip
COUNTS = {"trips": "iterations of the hot loop", "grid": "program instances", "warps": "warps of an instance"}
"""Numbers that `--shape` may give beside the kernel's arguments, and what they count."""
MOST_WARPS = 32
FAMILY = "triton"
"""Family of programs that were read: the library has no template for them, since the user has the kernel."""


def read_program(kernel: Kernel, given: Mapping[str, int]) -> TileProgram:
    """Return the tile program of the hot loop of a kernel.

    Args:
        kernel: as read from Triton's IR.
        given: whole numbers by argument name, for the loop's bounds; and `trips`, `grid` (program instances, 1 unless
            given) and `warps` (of one instance, 4 unless given).

    Raises:
        NoHotLoop: nothing to pipeline. UnsupportedIr: an operation without a counterpart. UnknownTrips: a bound that
        nothing tells. UnknownShapeKey, InvalidExtent: what was given is no number of the kernel's.
    """
    _check_given(kernel, given)
    loop = _hot_loop(kernel)
    reader = _Reader(kernel, loop)
    made = reader.operations()
    return TileProgram(
        name=kernel.name,
        family=FAMILY,
        operations=made,
        trips=given.get("trips") or _trips(kernel, loop, given),
        instances=given.get("grid", 1),
        shape=dict(given),
        tile_sizes={},
        invariants=tuple(reader.invariants.values()),
        warps=given.get("warps", 4),
        options={"dtype": _operand_dtype(made)},
    )


def _check_given(kernel: Kernel, given: Mapping[str, int]) -> None:
    """Refuse numbers that are for nothing, and counts out of their range."""
    arguments = [name.lstrip("%") for name, kind in kernel.arguments.items() if kind.startswith("i")]
    for key, value in given.items():
        if key not in arguments and key not in COUNTS:
            known = [*arguments, *COUNTS]
            raise UnknownShapeKey(
                family=kernel.name, key=key, expected=f"keys among {', '.join(known)}", hint=closest(key, known)
            )
        if key in COUNTS and value < 1:
            raise InvalidExtent(family=kernel.name, key=key, found=value, expected=f"{COUNTS[key]}: at least 1")
    warps = given.get("warps", 1)
    if warps & (warps - 1) or warps > MOST_WARPS:
        raise InvalidExtent(
            family=kernel.name,
            key="warps",
            found=warps,
            expected=f"{COUNTS['warps']}: a power of two up to {MOST_WARPS}",
        )


def which_loop(kernel: Kernel) -> str:
    """Return where the loop that `read_program` reads stands, and of how many; empty when there is only one."""
    inner = _innermost(kernel)
    return f"{kernel.place(_hot_loop(kernel))}, one of {len(inner)} innermost loops" if len(inner) > 1 else ""


def _operand_dtype(made: tuple[TileOperation, ...]) -> str:
    """Return the dtype most bytes are loaded in."""
    loads = [operation.result for operation in made if operation.kind is OperationKind.LOAD]
    return max(loads, key=lambda tile: tile.bytes).dtype if loads else "float32"


def _hot_loop(kernel: Kernel) -> Op:
    """Return the innermost loop with the most products, then the most loaded bytes."""
    ranked = [(_weight(op), -position, op) for position, op in enumerate(_innermost(kernel))]
    best = max(ranked, key=lambda item: item[:2], default=None)
    if best is None or best[0] == (0, 0):
        raise _no_loop(kernel)
    return best[2]


def _no_loop(kernel: Kernel) -> NoHotLoop:
    """Return the refusal of a kernel; a `while` loop is named, since its iterations are not counted anywhere."""
    for top in kernel.operations:
        for op in (top, *top.walk()):
            if op.name == "scf.while":
                hint = "how often a `while` loop runs is not known before: write it as `for ... in range(...)`"
                return NoHotLoop(kernel=kernel.name, place=kernel.place(op), hint=hint)
    return NoHotLoop(kernel=kernel.name)


def _innermost(kernel: Kernel) -> list[Op]:
    loops = [op for top in kernel.operations for op in (top, *top.walk()) if op.name == "scf.for"]
    return [op for op in loops if not any(other.name == "scf.for" for other in op.walk())]


def _weight(loop: Op) -> tuple[int, int]:
    products = sum(_elements(op.result_type) for op in loop.walk() if op.name in known.PRODUCTS)
    return products, sum(_elements(_loaded_type(op)) for op in loop.walk() if op.name in known.LOADS)


def _elements(text: str) -> int:
    count = 1
    for extent in re.findall(r"(\d+)x", text):
        count *= int(extent)
    return count


def _loaded_type(op: Op) -> str:
    """Return the type a load gives: behind its arrow, or what its pointers point to."""
    return re.sub(r"!tt\.ptr<(\w+)(?:, \d+)?>", r"\1", op.result_type)


def _trips(kernel: Kernel, loop: Op, given: Mapping[str, int]) -> int:
    first, last, step = re.findall(r"= (%[\w$.#-]+) to (%[\w$.#-]+) step (%[\w$.#-]+)", loop.text)[0]
    scalars = Scalars(kernel, given)
    begin, end, stride = (scalars.value(bound) for bound in (first, last, step))
    trips = -(-(end - begin) // stride) if stride > 0 else 0
    if trips < 1:
        expected = f"{COUNTS['trips']}: at least 1 (the loop at {kernel.place(loop)} goes from {begin} to {end})"
        raise InvalidExtent(family=kernel.name, key="trips", found=trips, expected=expected)
    return trips


@dataclass
class _Draft:
    """An operation being read: `fusible` arithmetic may become part of its only reader."""

    operation: TileOperation
    source: Op
    fusible: bool


@dataclass
class _Reader:
    """Reads one loop; values of the IR become operands as its operations are walked."""

    kernel: Kernel
    loop: Op
    operands: dict[str, Operand | None] = field(default_factory=dict[str, Operand | None])
    invariants: dict[str, Invariant] = field(default_factory=dict[str, Invariant])
    drafts: dict[str, _Draft] = field(default_factory=dict[str, _Draft])

    def __post_init__(self) -> None:
        self.outside = {r: op for top in self.kernel.operations for op in (top, *top.walk()) for r in op.results}
        self.inside = {result: op for op in self.loop.region for result in op.results}
        pairs = re.findall(r"(%[\w$.-]+) = (%[\w$.#-]+)", self.loop.text.partition("iter_args(")[2])
        yielded = next((op.operands for op in self.loop.region if op.name == "scf.yield"), [])
        self.carried = {argument: made for (argument, _), made in zip(pairs, yielded, strict=False)}
        self.data = self._data()
        self.names = {result: _named(result, op) for result, op in self.inside.items()}

    def operations(self) -> tuple[TileOperation, ...]:
        """Return the tile operations of the loop, in order, with chains of arithmetic put together."""
        self._refuse_effects()
        wanted = self._wanted()
        for op in self.loop.region:
            if id(op) in wanted:
                self._read(op)
        return _fused(self.drafts)

    def _refuse_effects(self) -> None:
        """Refuse branches and inner loops, and what changes memory in a way that is not read here."""
        for op in self.loop.region:
            branch = op.region and op.name not in known.REDUCTIONS
            effect = not op.results and op.name not in known.STORES | known.WITHOUT_EFFECT
            if branch or effect or op.name.startswith("tt.atomic"):
                raise UnsupportedIr(operation=op.name, kernel=self.kernel.name, place=self.kernel.place(op))

    # --- which operations count -------------------------------------------------------------------------------------

    def _data(self) -> set[str]:
        """Return the values that depend on something loaded or multiplied, across iterations too."""
        data = {r for op in self.loop.region if op.name in known.LOADS | known.PRODUCTS for r in op.results}
        before = -1
        while before != len(data):
            before = len(data)
            data |= {argument for argument, made in self.carried.items() if made in data}
            for op in self.loop.region:
                if any(operand in data for operand in op.operands):
                    data |= set(op.results)
        return data

    def _wanted(self) -> set[int]:
        """Return the operations on data, and those whose results they take that change from iteration to iteration."""
        wanted: set[int] = set()
        pending = [op for op in self.loop.region if set(op.results) & self.data or op.name in known.STORES]
        while pending:
            op = pending.pop()
            if id(op) in wanted or op.name == "scf.yield":
                continue
            wanted.add(id(op))
            taken = op.operands if op.name not in known.LOADS else [v for v in op.operands if v in self.data]
            pending += [self.inside[value] for value in taken if value in self.inside and self._changes(value)]
        return wanted

    def _changes(self, value: str) -> bool:
        """Whether a value made in the loop is a tile (rather than a scalar or the same in every iteration)."""
        op = self.inside[value]
        return value in self.data or ("tensor<" in op.result_type and "!tt.ptr" not in op.result_type)

    # --- one operation ----------------------------------------------------------------------------------------------

    def _read(self, op: Op) -> None:
        if op.name in known.CONSTANTS or self._another_name(op):
            return
        found = known.meaning(op.name)
        if found is None:
            raise UnsupportedIr(operation=op.name, kernel=self.kernel.name, place=self.kernel.place(op))
        name = self.names[op.results[0]] if op.results else f"store_{op.line}"
        operands = self._operands_of(op)
        result = self._tile(op, found.kind)
        if not operands and found.kind is not OperationKind.LOAD:
            return  # made of constants: nothing to wait for
        depth = self._depth(op) if found.kind is OperationKind.MMA else 0
        fusible = found.kind is OperationKind.ELEMENTWISE
        operation = TileOperation(name, found.kind, operands, result, depth, found.work, note=self._note(op))
        self.drafts[name] = _Draft(operation, op, fusible)
        if op.name in known.DIVISIONS:
            product = TileOperation(f"{name}_scaled", OperationKind.ELEMENTWISE, (Operand(name),), result)
            self.drafts[product.name] = _Draft(product, op, True)
            self.names[op.results[0]] = product.name

    def _another_name(self, op: Op) -> bool:
        """Whether a result stands for an operand: views, and scalars made of loaded ones, which cost nothing here."""
        return op.name in known.VIEWS or (bool(op.results) and "tensor<" not in op.types and op.name not in known.LOADS)

    def _note(self, op: Op) -> str:
        place = self.kernel.place(op)
        return f"line {place.line}" if place.file != self.kernel.file else ""

    def _operands_of(self, op: Op) -> tuple[Operand, ...]:
        taken = op.operands
        if op.name in known.LOADS:
            taken = [value for value in taken if value in self.data]
        elif op.name in known.STORES:
            taken = [value for value in taken if value in self.data][-1:]
        found = [operand for value in taken if (operand := self._operand(value, op)) is not None]
        return tuple(dict.fromkeys(found)) if op.name not in known.PRODUCTS else tuple(found)

    def _operand(self, value: str, reader: Op) -> Operand | None:
        """Return the operand a value is; None for constants, scalars and what does not change."""
        if value in self.carried:
            return self._of_before(value, reader)
        op = self.inside.get(value)
        if op is None:
            return self._invariant(value, reader)
        if self._another_name(op):
            inner = [self._operand(source, reader) for source in op.operands]
            return next((operand for operand in inner if operand is not None), None)
        name = self.names[value]
        return Operand(name) if name in self.drafts else None

    def _of_before(self, value: str, reader: Op) -> Operand | None:
        """Follow a carried value back to the iteration that made it."""
        distance, seen = 0, set[str]()
        while value in self.carried:
            if value in seen or value not in self.data:
                return None
            seen.add(value)
            distance, value = distance + 1, self.carried[value]
        op = self.inside.get(value)
        while op is not None and op.name in known.VIEWS:
            value = next((source for source in op.operands if source in self.data), "")
            if value in self.carried:
                made = self._of_before(value, reader)
                return None if made is None else Operand(made.value, made.distance + distance)
            op = self.inside.get(value)
        return None if op is None else Operand(self.names[value], distance)

    def _invariant(self, value: str, reader: Op) -> Operand | None:
        """Return a tile from outside the loop; products read theirs from shared memory."""
        op = self.outside.get(value)
        while op is not None and op.name in known.VIEWS and op.operands:
            value = op.operands[0]
            op = self.outside.get(value)
        if op is None or op.name == "arith.constant" or "tensor<" not in op.result_type:
            return None
        name = _plain(value)
        shared = reader.name in known.PRODUCTS
        if name not in self.invariants:
            tile = self._tile_from(op, _loaded_type(op), Memory.SHARED if shared else Memory.REGISTER)
            self.invariants[name] = Invariant(name, tile)
        return Operand(name)

    def _tile(self, op: Op, kind: OperationKind) -> Tile:
        memory = {OperationKind.LOAD: Memory.SHARED, OperationKind.STORE: Memory.GLOBAL}.get(kind, Memory.REGISTER)
        text = _loaded_type(op)
        if kind is OperationKind.STORE:
            text = re.sub(r"!tt\.ptr<(\w+)(?:, \d+)?>", r"\1", op.types.rpartition(", ")[2])
        return self._tile_from(op, text, memory)

    def _tile_from(self, op: Op, text: str, memory: Memory) -> Tile:
        match = _TENSOR.search(text)
        extents = tuple(int(extent) for extent in match[1].split("x") if extent) if match else (1,)
        element = match[2] if match else text
        if element not in _DTYPES:
            raise UnsupportedIr(
                operation=f"{op.name} of {element}", kernel=self.kernel.name, place=self.kernel.place(op)
            )
        return Tile(extents, _DTYPES[element], memory)

    def _depth(self, op: Op) -> int:
        """Return the contracted extent: the columns of the first operand."""
        extents = re.findall(r"tensor<((?:\d+x)+)", op.types)[0].strip("x").split("x")
        if len(extents) != 2:
            raise UnsupportedIr(
                operation=f"{op.name} of {len(extents)} dimensions",
                kernel=self.kernel.name,
                place=self.kernel.place(op),
            )
        return int(extents[1])


def _named(value: str, op: Op) -> str:
    """Return the name of a result: the source's, or the operation's where the source has none (`exp_5`)."""
    plain = _plain(value)
    return f"{op.name.rpartition('.')[2]}_{plain}" if plain.isdigit() else plain


def _plain(value: str) -> str:
    return re.sub(r"\W", "_", value.lstrip("%"))


def _fused(drafts: dict[str, _Draft]) -> tuple[TileOperation, ...]:
    """Put arithmetic into its only reader, where that is arithmetic on the same shape; a product and a sum are one."""
    readers: dict[str, list[str]] = {name: [] for name in drafts}
    for name, draft in drafts.items():
        for operand in draft.operation.operands:
            if operand.value in readers:
                readers[operand.value] += [name] if operand.distance == 0 else [name, name]
    made = {name: draft.operation for name, draft in drafts.items()}
    for name, draft in drafts.items():
        if not draft.fusible or len(readers[name]) != 1:
            continue
        reader = readers[name][0]
        inner, outer = made[name], made[reader]
        if not drafts[reader].fusible or inner.result.shape != outer.result.shape:
            continue
        multiplied = draft.source.name == "arith.mulf" and drafts[reader].source.name in known.FUSED_WITH_MULTIPLICATION
        fused = multiplied and outer.work == 1
        operands = [o for o in outer.operands if o.value != name]
        position = [o.value for o in outer.operands].index(name)
        merged = (*operands[:position], *inner.operands, *operands[position:])
        work = inner.work + outer.work - fused
        made[reader] = replace(outer, operands=tuple(dict.fromkeys(merged)), work=work)
        del made[name]
    return tuple(made[name] for name in drafts if name in made)
