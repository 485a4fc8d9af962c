"""A warp program as a Gluon module: groups as functions, rings and barriers by name, a launcher with checks.

The module stands alone (triton and torch), compiles with Triton 3.6 and newer, and says at its top what schedule it is.
Same kernel, same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.codegen.gluon.assign import AssignFrame, TensorAssignFrame
from treadle.codegen.gluon.attention import AttentionFrame
from treadle.codegen.gluon.backward import BackwardFrame
from treadle.codegen.gluon.blackwell import TensorMatrixFrame
from treadle.codegen.gluon.decode import DecodeFrame, PagedFrame, TensorDecodeFrame, TensorPagedFrame
from treadle.codegen.gluon.errors import NoGluonFrame, NotEmittable
from treadle.codegen.gluon.frames import GLUON_TYPES, SHORT_TYPES, FrameBase, barriers, indented
from treadle.codegen.gluon.grouped import GroupedFrame, TensorGroupedFrame
from treadle.codegen.gluon.header import header_lines
from treadle.codegen.gluon.kernel import Budgets, WarpKernel, budgets, buffer_name, identifier, issues_only
from treadle.codegen.gluon.matrix import L2_GROUP, PRODUCTS, MatrixFrame
from treadle.codegen.gluon.names import names_of_module, unmade
from treadle.codegen.gluon.normed import NormedFrame, TensorNormedFrame
from treadle.codegen.gluon.quantized import QuantizedFrame, TensorQuantizedFrame
from treadle.codegen.gluon.tensor_attention import TensorAttentionFrame
from treadle.codegen.gluon.tensor_backward import TensorBackwardFrame
from treadle.codegen.gluon.varlen import TensorVarlenFrame, VarlenFrame
from treadle.codegen.gluon.writer import GroupWriter, Lines
from treadle.ir.machine import Machine
from treadle.ir.tile.program import Memory
from treadle.ir.warp.program import WarpGroup

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parents[1] / "templates" / "gluon"

HOPPER_FRAMES: dict[str, type[FrameBase]] = {
    "attention_fwd": AttentionFrame,
    "attention_bwd": BackwardFrame,
    "attention_varlen": VarlenFrame,
    "attention_decode": DecodeFrame,
    "kmeans_assign": AssignFrame,
    "rms_norm_gemm": NormedFrame,
    "gemm_w4a16": QuantizedFrame,
    "attention_paged": PagedFrame,
    **dict.fromkeys(PRODUCTS, MatrixFrame),
    "grouped_gemm": GroupedFrame,
}
BLACKWELL_FRAMES: dict[str, type[FrameBase]] = {
    **dict.fromkeys(PRODUCTS, TensorMatrixFrame),
    "attention_fwd": TensorAttentionFrame,
    "attention_bwd": TensorBackwardFrame,
    "attention_varlen": TensorVarlenFrame,
    "attention_decode": TensorDecodeFrame,
    "kmeans_assign": TensorAssignFrame,
    "rms_norm_gemm": TensorNormedFrame,
    "gemm_w4a16": TensorQuantizedFrame,
    "attention_paged": TensorPagedFrame,
    "grouped_gemm": TensorGroupedFrame,
}

HOPPER_IMPORTS = (
    "from triton.experimental.gluon.language.nvidia.hopper import (",
    "    fence_async_shared,",
    "    mbarrier,",
    "    tma,",
    "    warpgroup_mma,",
    "    warpgroup_mma_init,",
    "    warpgroup_mma_wait,",
    ")",
)

BLACKWELL_IMPORTS = (
    "from triton.experimental.gluon.language.nvidia.blackwell import (",
    "    TensorMemoryLayout,",
    "    allocate_tensor_memory,",
    "    fence_async_shared,",
    "    mbarrier,",
    "    tcgen05_commit,",
    "    tcgen05_mma,",
    "    tensor_memory_descriptor,",
    "    tma,",
    ")",
)


@dataclass(frozen=True, slots=True)
class GroupText:
    """One group as a function."""

    name: str
    summary: str
    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    warps: int
    registers: int


def has_frame(family: str, machine: Machine) -> bool:
    """Whether kernels of a family are emitted in Gluon for a machine."""
    frames = BLACKWELL_FRAMES if machine.has("tensor_memory") else HOPPER_FRAMES
    return machine.has("tma") and family in frames


def frame_of(kernel: WarpKernel) -> FrameBase:
    """Return what surrounds a kernel's loop; raises NoGluonFrame, NotEmittable, NoSharedMemoryLeft."""
    frames = BLACKWELL_FRAMES if kernel.blackwell else HOPPER_FRAMES
    if not has_frame(kernel.program.family, kernel.machine):
        raise NoGluonFrame(family=kernel.program.family, kernel=kernel.name, architecture=kernel.machine.architecture)
    return frames[kernel.program.family](kernel)


def default_group(kernel: WarpKernel, frame: FrameBase) -> int:
    """Return the position of the group that Gluon calls the default one: what the frame adds, or the first to compute.

    It has four warps; groups that only issue copies or products have one.

    Groups of the frame come behind those of the warp program.
    """
    groups = kernel.warp_program.groups
    if frame.extra_groups():
        return len(groups)
    computing = (at for at, group in enumerate(groups) if not frame.is_load(group) and not issues_only(kernel, group))
    found = next(computing, None)
    if found is None:
        raise NotEmittable(kernel=kernel.name, reason="no group computes")
    return found


def register_budgets(kernel: WarpKernel) -> Budgets:
    """Return the registers that the emitted kernel asks for."""
    return _budgets(kernel, frame_of(kernel))


def _budgets(kernel: WarpKernel, frame: FrameBase) -> Budgets:
    """Shares depend on the schedule alone where groups compute: what they are then seen to use changes no binary."""
    extra = frame.extra_groups()
    narrow = (*(frame.is_load(group) or issues_only(kernel, group) for group in kernel.warp_program.groups),)
    own = (kernel.registers[at] if narrow[at] else kernel.made.registers[at] for at in range(len(narrow)))
    planned = (*own, *(registers for _, registers in extra.values()))
    return budgets(kernel, planned, default_group(kernel, frame), (*narrow, *(False for _ in extra)))


def emit(kernel: WarpKernel, plan_id: str = "") -> str:
    """Return the source of a Gluon module that runs the kernel.

    Raises:
        NoGluonFrame, NotEmittable, NoSharedMemoryLeft.
    """
    frame = frame_of(kernel)
    default = default_group(kernel, frame)
    registers = _budgets(kernel, frame)
    pool = _names(kernel, frame)
    groups = [_group(kernel, position, frame, registers, pool) for position in range(len(kernel.warp_program.groups))]
    for at, (name, (lines, _)) in enumerate(frame.extra_groups().items(), start=len(groups)):
        groups.append(_extra_group(name, lines, registers.groups[at], pool))
    ordered = [groups[default], *(group for at, group in enumerate(groups) if at != default)]
    context = {
        "summary": frame.summary,
        "name": identifier(kernel.program.name),
        "dtype": kernel.dtype,
        "header": header_lines(kernel, registers, plan_id),
        "imports": BLACKWELL_IMPORTS if kernel.blackwell else HOPPER_IMPORTS,
        "tiles": {key: value for key, value in kernel.program.tile_sizes.items() if key.startswith("block")},
        "constants": frame.constants(),
        "descriptors": frame.descriptors(),
        "short_types": SHORT_TYPES,
        "gluon_types": GLUON_TYPES,
        "scalars": frame.scalars(),
        "default_warps": groups[default].warps,
        "budgets": registers,
        "groups": groups,
        "ordered": ordered,
        "arguments": [*(d.name for d in frame.descriptors()), *frame.scalars()],
        "body": _memory(kernel, frame),
        "capability": "10.0" if kernel.blackwell else "9.0",
        "capability_major": 10 if kernel.blackwell else 9,
        "shape": kernel.program.shape,
        "tiles_of": kernel.program.tile_sizes,
        "options": kernel.program.options,
        "halves": any("_halves(" in line for group in groups for line in group.lines),
        "l2_group": L2_GROUP,
        "left": frame.descriptors()[0].tensor,
        "fp8": any(d.dtype == "float8_e4m3" for d in frame.descriptors()),
    }
    text = _environment().get_template(frame.template).render(context).rstrip() + "\n"
    _check_names(kernel, text, groups)
    return text


def _check_names(kernel: WarpKernel, text: str, groups: list[GroupText]) -> None:
    """Refuse a group that reads a name which it has not made and is not handed; raises NotEmittable."""
    module = names_of_module(text)
    for group in groups:
        missing = unmade(group.lines, module.union(group.arguments))
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            reason = f"group `{group.name}` reads {names}, which it neither makes nor is handed"
            raise NotEmittable(kernel=kernel.name, reason=reason)


def _names(kernel: WarpKernel, frame: FrameBase) -> tuple[str, ...]:
    """Return what a group may be handed: descriptors, sizes, buffers and barriers."""
    program = kernel.warp_program
    names = [*(d.name for d in frame.descriptors()), *frame.scalars()]
    names += [buffer_name(program, buffer.name) for buffer in program.buffers]
    for channel in program.channels:
        names += [f"{identifier(channel.name)}_full", f"{identifier(channel.name)}_empty"]
    names += [identifier(turn.name) for turn in program.turns]
    for extra in frame.extras():
        names += [extra.name, f"{extra.name}_full", f"{extra.name}_empty"]
    return (*names, *frame.barrier_names())


def _memory(kernel: WarpKernel, frame: FrameBase) -> Lines:
    """Return the allocation of buffers and barriers, and the barriers' first phases."""
    lines: Lines = []
    program = kernel.warp_program
    layouts = dict(frame.rings().items())
    for buffer in program.buffers:
        name = buffer_name(program, buffer.name)
        if buffer.memory is Memory.SHARED:
            block, element, layout = layouts.get(buffer.name) or frame.handed(buffer)
            shape = [buffer.slots, *block]
            lines.append(f"{name} = ttgl.allocate_shared_memory({element}, {shape}, {layout})")
        else:
            lines += frame.tensor_buffer(buffer)
    for extra in frame.extras():
        shape = [extra.slots, *extra.block]
        lines.append(f"{extra.name} = ttgl.allocate_shared_memory({GLUON_TYPES[extra.dtype]}, {shape}, {extra.layout})")
        if extra.arrivals:
            lines += barriers(f"{extra.name}_full", extra.slots, 1)
            lines += barriers(f"{extra.name}_empty", extra.slots, extra.arrivals)
    for channel in program.channels:
        slots = program.buffer(channel.buffer).slots
        lines += barriers(f"{identifier(channel.name)}_full", slots, 1)
        if not channel.one_way:
            lines += barriers(f"{identifier(channel.name)}_empty", slots, len(channel.consumers))
    for turn in program.turns:
        lines += barriers(identifier(turn.name), len(turn.holders), 1)
    return [*lines, "fence_async_shared()"]


def _group(kernel: WarpKernel, position: int, frame: FrameBase, registers: Budgets, pool: tuple[str, ...]) -> GroupText:
    group = kernel.warp_program.groups[position]
    lines = _group_lines(kernel, position, frame)
    words = set(re.findall(r"\w+", "\n".join(lines)))
    return GroupText(
        name=identifier(group.name),
        summary=_summary(kernel, group, frame),
        arguments=tuple(name for name in pool if name in words),
        lines=tuple(lines),
        warps=1 if frame.is_load(group) or issues_only(kernel, group) else group.warps,
        registers=registers.groups[position],
    )


def _extra_group(name: str, lines: Lines, registers: int, pool: tuple[str, ...]) -> GroupText:
    words = set(re.findall(r"\w+", "\n".join(lines)))
    arguments = tuple(known for known in pool if known in words)
    return GroupText(name, "Writes finished tiles while the next ones are made.", arguments, tuple(lines), 4, registers)


def _summary(kernel: WarpKernel, group: WarpGroup, frame: FrameBase) -> str:
    if frame.is_load(group):
        return "Copies tiles into the rings; one warp does all of it."
    if issues_only(kernel, group):
        return "Issues products into tensor memory; one warp does all of it."
    return f"{group.warps} warps; iterations of {group.stages} stages overlap."


def _group_lines(kernel: WarpKernel, position: int, frame: FrameBase) -> Lines:
    """Return the body of a group's function: the tile loop around prologue, steady state and epilogue."""
    group = kernel.warp_program.groups[position]
    stage = None if frame.is_load(group) else frame.mask_stage(group)
    writer = GroupWriter(kernel, position, frame)
    printed = writer.printed(masked=stage is not None)
    ahead = group.stages - 1
    steady = _loop(f"range({ahead}, trips)" if ahead else "range(trips)", printed.steady)
    if stage is not None:
        steady = [
            f"# Steps up to `whole` see no mask: those of iteration `full` on, which stage {stage} works for, do.",
            f"whole = ttgl.minimum(ttgl.maximum(full + {stage}, {ahead}), trips)",
            *_loop(f"range({ahead}, whole)", printed.steady),
            *_loop(f"range(ttgl.maximum(whole, {ahead}), trips)", printed.masked),
        ]
    body = [*printed.prologue, *steady, *printed.epilogue, *frame.settle(group, printed.epilogue)]
    turning = any(position in turn.holders for turn in kernel.warp_program.turns)
    before, behind = [*frame.start(group), *writer.primed()], [*writer.drained(), *frame.finish(group)]
    tile = [*frame.tile(group), *before, *body, *behind, "first += trips"]
    tile += [f"turns += trips + {ahead}"] if turning else []
    opening = ["first = 0", "turns = 0"] if turning else ["first = 0"]
    return [*frame.opening(group), *opening, *frame.tile_loop(tile), *frame.closing(group)]


def _loop(over: str, lines: Lines) -> Lines:
    counted = any(re.search(r"\bat\b", line) for line in lines)
    return [f"for step in {over}:", *indented([*(["at = first + step"] if counted else []), *lines])]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([TEMPLATES, TEMPLATES.with_name("triton")]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
