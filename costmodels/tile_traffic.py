"""Bytes a tile program moves, and the share of memory bandwidth one multiprocessor gets.

Loads that several instances make of the same tile come from the second-level cache: device memory sees every byte
once. A load therefore streams at the multiprocessor's port, or at its fair share of device bandwidth times the reuse,
whichever is slower. The compulsory bytes are known for the families of the program library, from their shapes; a
program of another family is charged the port alone.
"""

from __future__ import annotations

from treadle.ir.machine import Machine
from treadle.ir.tile.program import DTYPE_BYTES, OperationKind, TileProgram


def issued_load_bytes(program: TileProgram) -> int:
    """Return the bytes that all instances load in all loops, repeats included."""
    return _issued(program, OperationKind.LOAD)


def issued_store_bytes(program: TileProgram) -> int:
    """Return the bytes that the loops of all instances store."""
    return _issued(program, OperationKind.STORE)


def _issued(program: TileProgram, kind: OperationKind) -> int:
    body = sum(op.result.bytes for op in program.operations if op.kind is kind)
    inside = body * program.trips * program.instances + sum(_issued(loop, kind) for loop in program.siblings)
    return inside * program.repeats


def compulsory_load_bytes(program: TileProgram) -> int | None:
    """Return the bytes that the loops must read from device memory at least; None for an unknown family."""
    shape, width = program.shape, _width(program)
    match program.family:
        case "gemm" | "gemm_persistent" | "rms_norm_gemm":
            return width * (shape["m"] + shape["n"]) * shape["k"]
        case "swiglu" | "dual_gemm":
            return width * (shape["m"] + 2 * shape["n"]) * shape["k"]
        case "gemm_fp8":
            return (shape["m"] + shape["n"]) * shape["k"]
        case "gemm_w4a16":
            weights = shape["n"] * shape["k"] // 2 + width * shape["n"] * -(-shape["k"] // shape["group"])
            return width * shape["m"] * shape["k"] + weights
        case "grouped_gemm":
            rows = shape["tokens"] * shape["top_k"]
            return width * (rows + min(shape["experts"], rows) * shape["n"]) * shape["k"]
        case "attention_fwd" | "attention_decode" | "attention_paged":
            return width * _cache_elements(shape)
        case "attention_varlen":
            return width * shape["tokens"] * shape["kv_heads"] * _head_width(shape)
        case "attention_bwd":
            return width * shape["batch"] * shape["heads"] * shape["seq"] * _head_width(shape)
        case "kmeans_assign":
            return shape["centroids"] * (width * shape["dimension"] + 4)
        case "rms_norm" | "layer_norm":
            return width * shape["rows"] * shape["columns"] * (1 + bool(program.options.get("residual")))
        case _:
            return None


def compulsory_store_bytes(program: TileProgram) -> int:
    """Return the bytes that the loops must write to device memory; sums in the making stay in the cache."""
    if program.family == "attention_bwd":
        shape = program.shape
        return 4 * shape["batch"] * shape["heads"] * shape["seq"] * shape["qk_head_dim"]
    return issued_store_bytes(program)


def compulsory_bytes(program: TileProgram) -> int:
    """Return the bytes the whole kernel must move: loop inputs once, invariants per instance, results once.

    For an unknown family the loads of one instance count: the others may find them all in the cache.
    """
    loads = compulsory_load_bytes(program)
    loads = issued_load_bytes(program) // program.instances if loads is None else loads
    return loads + outside_loop_bytes(program) + compulsory_store_bytes(program)


def reuse(program: TileProgram) -> float | None:
    """Return how often a loaded byte is used by different instances or trips; None for an unknown family."""
    compulsory = compulsory_load_bytes(program)
    if not compulsory:
        return None
    return max(1.0, issued_load_bytes(program) / compulsory)


def fair_share_bytes_per_cycle(program: TileProgram, machine: Machine) -> float:
    """Return the sustained device bandwidth per busy multiprocessor, in bytes per boost cycle."""
    busy = min(program.instances, machine.value("sm_count"))
    cycles_per_s = machine.value("clock_boost_ghz") * 1e9
    return machine.value("memory_bandwidth_sustained_bytes_per_s") / cycles_per_s / busy


def load_rate(program: TileProgram, machine: Machine) -> float:
    """Return the bytes per cycle at which one multiprocessor loads tiles of the program."""
    port = machine.value("load_port_bytes_per_cycle")
    repeats = reuse(program)
    return port if repeats is None else min(port, repeats * fair_share_bytes_per_cycle(program, machine))


def store_rate(program: TileProgram, machine: Machine) -> float:
    """Return the bytes per cycle at which one multiprocessor stores tiles of the program."""
    repeats = issued_store_bytes(program) / (compulsory_store_bytes(program) or 1)
    port = machine.value("store_port_bytes_per_cycle")
    return min(port, max(1.0, repeats) * fair_share_bytes_per_cycle(program, machine))


def _cache_elements(shape: dict[str, int]) -> int:
    width = shape["qk_head_dim"] + (0 if shape.get("latent") == 1 else shape["v_head_dim"])
    return shape["batch"] * shape["kv_heads"] * shape["kv_seq"] * width


def _head_width(shape: dict[str, int]) -> int:
    return shape["qk_head_dim"] + shape["v_head_dim"]


def outside_loop_bytes(program: TileProgram) -> int:
    """Return the bytes of invariants and results that prologues load and epilogues store, over the whole grid."""
    shape, width = program.shape, _width(program)
    match program.family:
        case "gemm" | "swiglu" | "gemm_fp8" | "gemm_w4a16" | "rms_norm_gemm":
            return width * shape["m"] * shape["n"]
        case "dual_gemm":
            return width * shape["m"] * shape["n"] * (2 if program.options.get("combine") == "both" else 1)
        case "grouped_gemm":
            return width * shape["tokens"] * shape["top_k"] * shape["n"]
        case "attention_fwd" | "attention_decode" | "attention_paged":
            return width * shape["batch"] * shape["heads"] * shape.get("seq", 1) * _head_width(shape)
        case "attention_varlen":
            return width * shape["tokens"] * shape["heads"] * _head_width(shape)
        case "attention_bwd":
            return 2 * width * _cache_elements(shape)
        case "kmeans_assign":
            return shape["points"] * (width * shape["dimension"] + 8)
        case _:
            return 0


def _width(program: TileProgram) -> int:
    """Bytes of one element of the program's dtype."""
    return int(DTYPE_BYTES.get(str(program.options.get("dtype", "bfloat16")), 2))
