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
    """Return the bytes that all instances load over all trips, repeats included."""
    body = sum(op.result.bytes for op in program.operations if op.kind is OperationKind.LOAD)
    return body * program.trips * program.instances


def issued_store_bytes(program: TileProgram) -> int:
    """Return the bytes that the loops of all instances store."""
    body = sum(op.result.bytes for op in program.operations if op.kind is OperationKind.STORE)
    return body * program.trips * program.instances


def compulsory_load_bytes(program: TileProgram) -> int | None:
    """Return the bytes that the loop must read from device memory at least; None for an unknown family."""
    match program.family:
        case "gemm" | "swiglu" | "grouped_gemm":
            elements = _product_inputs(program)
        case "attention_fwd" | "attention_decode":
            elements = _cache_elements(program.shape)
        case "rms_norm":
            elements = program.shape["rows"] * program.shape["columns"] * (1 + bool(program.options.get("residual")))
        case _:
            return None
    return _bytes(program, elements)


def compulsory_bytes(program: TileProgram) -> int:
    """Return the bytes the whole kernel must move: loop inputs once, invariants per instance, results once.

    For an unknown family the loads of one instance count: the others may find them all in the cache.
    """
    loads = compulsory_load_bytes(program)
    loads = issued_load_bytes(program) // program.instances if loads is None else loads
    return loads + outside_loop_bytes(program) + issued_store_bytes(program)


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
    return min(machine.value("store_port_bytes_per_cycle"), fair_share_bytes_per_cycle(program, machine))


def _product_inputs(program: TileProgram) -> int:
    shape = program.shape
    if program.family == "grouped_gemm":
        rows = shape["tokens"] * shape["top_k"]
        return rows * shape["k"] + min(shape["experts"], rows) * shape["n"] * shape["k"]
    weights = 2 if program.family == "swiglu" else 1
    return shape["m"] * shape["k"] + weights * shape["n"] * shape["k"]


def _cache_elements(shape: dict[str, int]) -> int:
    width = shape["qk_head_dim"] + (0 if shape.get("latent") == 1 else shape["v_head_dim"])
    return shape["batch"] * shape["kv_heads"] * shape["kv_seq"] * width


def outside_loop_bytes(program: TileProgram) -> int:
    """Return the bytes of invariants and results that prologues load and epilogues store, over the whole grid."""
    shape = program.shape
    match program.family:
        case "gemm" | "swiglu":
            elements = shape["m"] * shape["n"]
        case "grouped_gemm":
            elements = shape["tokens"] * shape["top_k"] * shape["n"]
        case "attention_fwd" | "attention_decode":
            queries = shape["batch"] * shape["heads"] * shape.get("seq", 1)
            elements = queries * (shape["qk_head_dim"] + shape["v_head_dim"])
        case _:
            elements = 0
    return _bytes(program, elements)


def _bytes(program: TileProgram, elements: int) -> int:
    return int(elements * DTYPE_BYTES.get(str(program.options.get("dtype", "bfloat16")), 2))
