"""Small tile programs built by hand."""

from treadle.ir.tile.program import Invariant, Memory, Operand, OperationKind, Tile, TileOperation, TileProgram


def tile(*shape: int, dtype: str = "float32", memory: Memory = Memory.REGISTER) -> Tile:
    return Tile(shape, dtype, memory)


def op(name: str, kind: OperationKind, reads: str, result: Tile, depth: int = 0, work: float = 1) -> TileOperation:
    operands = tuple(Operand(value.partition("@")[0], int(value.partition("@")[2] or 0)) for value in reads.split())
    return TileOperation(name, kind, operands, result, depth, work)


def load(name: str, *shape: int, dtype: str = "bfloat16") -> TileOperation:
    return op(name, OperationKind.LOAD, "", tile(*shape, dtype=dtype, memory=Memory.SHARED))


def program(
    *operations: TileOperation,
    invariants: tuple[Invariant, ...] = (),
    trips: int = 64,
    instances: int = 1,
    warps: int = 8,
) -> TileProgram:
    return TileProgram(
        name="hand",
        family="hand",
        operations=operations,
        trips=trips,
        instances=instances,
        shape={},
        tile_sizes={},
        invariants=invariants,
        warps=warps,
    )


def gemm(m: int = 128, n: int = 128, k: int = 128, dtype: str = "bfloat16") -> TileProgram:
    return program(
        load("a", m, k, dtype=dtype),
        load("b", n, k, dtype=dtype),
        op("acc", OperationKind.MMA, "a b acc@1", tile(m, n), depth=k),
    )


def attention(rows: int = 128, columns: int = 128, head_dim: int = 128) -> TileProgram:
    """One step of attention, its softmax reduced to what matters for units."""
    query = Invariant("q", tile(rows, head_dim, dtype="bfloat16", memory=Memory.SHARED))
    wide, row = tile(rows, columns), tile(rows)
    return program(
        load("k", columns, head_dim),
        load("v", columns, head_dim),
        op("s", OperationKind.MMA, "q k", wide, depth=head_dim),
        op("tile_max", OperationKind.REDUCE, "s", row),
        op("max", OperationKind.ELEMENTWISE, "tile_max max@1", row, work=2),
        op("drop", OperationKind.ELEMENTWISE, "max@1 max", row),
        op("alpha", OperationKind.EXP2, "drop", row),
        op("shifted", OperationKind.ELEMENTWISE, "s max", wide),
        op("p", OperationKind.EXP2, "shifted", wide),
        op("p_low", OperationKind.CONVERT, "p", tile(rows, columns, dtype="bfloat16")),
        op("rescaled", OperationKind.ELEMENTWISE, "o@1 alpha", tile(rows, head_dim)),
        op("o", OperationKind.MMA, "p_low v rescaled", tile(rows, head_dim), depth=columns),
        invariants=(query,),
    )
