"""A kernel plan: a tile program, the loop a machine makes of it, its schedule, and what was compiled from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from treadle.ir.certificate import Certificate
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.modes import Modes
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warps import WarpLoop, WarpSchedule


@dataclass(frozen=True, slots=True)
class Compiled:
    """One compilation of a kernel: resources as the assembler left them, and the files in the plan folder."""

    target: str
    """Compiler target, such as `sm_90`."""
    compiler: str
    """Compiler and version, such as `triton 3.9.0`."""
    binary: str
    """Path of the binary, relative to the plan folder."""
    registers: int
    """Registers per thread."""
    spill_bytes: int
    """Local memory per thread, bytes."""
    smem_bytes: int
    """Shared memory per program instance, bytes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A median time of a kernel on a GPU at the plan's shape, and where it was taken."""

    time_us: float
    gpu: str
    driver: str
    versions: dict[str, str]
    """Of torch and triton there."""
    date: str
    clock_mhz: float | None = None
    """Clock of the multiprocessors at the end of the run, where the driver tells."""
    runners_up: dict[str, float] = field(default_factory=dict[str, float])
    """Times in microseconds of the other candidates of the same run, by language, tile sizes and schedule."""
    predicted_us: float | None = None
    """What was predicted for it where that is not the plan's own time: a schedule over warp groups as simulated."""

    def __post_init__(self) -> None:
        if not self.time_us > 0:
            raise InvalidValue(message=f"a kernel cannot take {self.time_us} us")
        if self.predicted_us is not None and not self.predicted_us > 0:
            raise InvalidValue(message=f"a kernel cannot be predicted to take {self.predicted_us} us")


@dataclass(frozen=True, slots=True)
class Room:
    """What a schedule leaves free for the compiler: registers per thread of every group, shared memory (bytes)."""

    registers: int = 0
    shared_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.registers, self.shared_bytes) < 0:
            raise InvalidValue(message=f"room of {self.registers} registers and {self.shared_bytes} bytes is negative")

    def taken_from(self, warps: WarpLoop) -> WarpLoop:
        """Return the loop with less room: more registers fixed in every group, more shared memory taken from rings."""
        if self == Room():
            return warps
        limits = replace(warps.limits, fixed_registers=warps.limits.fixed_registers + self.registers)
        capacities = tuple(
            replace(capacity, fixed_bytes=capacity.fixed_bytes + self.shared_bytes)
            if capacity.memory == "shared"
            else capacity
            for capacity in warps.loop.capacities
        )
        return replace(warps, loop=replace(warps.loop, capacities=capacities), limits=limits)


@dataclass(frozen=True, slots=True)
class WarpPlan:
    """The same loop over warp groups: the problem, its schedule, and how good that is proven to be, level by level."""

    warps: WarpLoop
    schedule: WarpSchedule
    certificate: Certificate
    room: Room = Room()
    """What the problem leaves out of the machine's registers and shared memory."""
    budget: tuple[int, ...] = ()
    """Registers per thread that the emitted kernel gives every group, where compiling it has shown what they need."""

    def __post_init__(self) -> None:
        if not self.budget:
            return
        if len(self.budget) != self.schedule.group_count or min(self.budget) < self.warps.limits.role_registers:
            raise InvalidValue(message=f"a budget of {self.budget} registers for {self.schedule.group_count} groups")
        if sum(self.budget) > self.warps.limits.registers_of_file:
            most = self.warps.limits.registers_of_file
            raise InvalidValue(message=f"a budget of {sum(self.budget)} registers for all groups; the file has {most}")

    @property
    def registers(self) -> tuple[int, ...]:
        """Registers per thread of every group: what compiling has shown, else those of the schedule's values."""
        return self.budget or self.schedule.registers


@dataclass(frozen=True, slots=True)
class ScheduledLoop:
    """A further loop of a kernel, with its schedule and how good that is proven to be.

    Where the kernel runs over warp groups, `groups` is this loop over them, and its group k is the kernel's group
    `homes[k]`.
    """

    loop: Loop
    schedule: Schedule
    certificate: Certificate
    groups: WarpPlan | None = None
    homes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups.warps.loop.operations != self.loop.operations:
            raise InvalidValue(message=f"the warp groups of loop `{self.loop.name}` run another loop")
        if len(self.homes) != (self.groups.schedule.group_count if self.groups else 0):
            raise InvalidValue(message=f"loop `{self.loop.name}` does not name a warp group for each of its own")


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """One scheduled loop. `calls` says how often one forward pass of the model runs it, and in which phase."""

    name: str
    loop: Loop
    schedule: Schedule
    certificate: Certificate
    program: TileProgram | None = None
    """None for a bare loop read from a file: no kernel can be emitted from it."""
    predictions: tuple[Prediction, ...] = ()
    source: str = ""
    """Path of the emitted source, relative to the plan folder; empty when none was emitted."""
    compiled: tuple[Compiled, ...] = ()
    calls: int = 1
    phase: str = ""
    siblings: tuple[ScheduledLoop, ...] = ()
    """The program's other loops, in the order of `program.siblings`."""
    measured: Measured | None = None
    """None for a kernel that ran on no GPU: its times are predictions."""
    groups: WarpPlan | None = None
    """The main loop over warp groups; None when they were not asked for, or there are none."""
    groupless: str = ""
    """Why the machine runs no schedule over warp groups, or why none was found; empty otherwise."""
    language: str = "triton"
    """What the source is written in: portable `triton`, or `gluon`, which runs the schedule over warp groups."""
    simulated: tuple[Prediction, ...] = ()
    """What the loops over warp groups take on the machine model, run as warp programs; empty without groups."""
    attempts: tuple[str, ...] = ()
    """Why earlier schedules or programs were given up after compilation, in their order."""
    modes: Modes | None = None
    """All tile shapes of the program with their bounds, where the tile was chosen among them."""

    def __post_init__(self) -> None:
        binaries = [compiled.binary for compiled in self.compiled]
        if len(set(binaries)) != len(binaries) or (binaries and not self.source):
            raise InvalidValue(message=f"kernel `{self.name}` names a binary twice, or has binaries without a source")
        loops = [loop.name for loop in self.program.siblings] if self.program else []
        if loops != [sibling.loop.name for sibling in self.siblings]:
            raise InvalidValue(message=f"kernel `{self.name}` schedules other loops than its program has")
        if self.language not in ("triton", "gluon"):
            raise InvalidValue(message=f"kernel `{self.name}` is in the unknown language `{self.language}`")
        if self.groups is not None and self.groups.warps.loop.operations != self.loop.operations:
            raise InvalidValue(message=f"the warp groups of kernel `{self.name}` run another loop")

    @property
    def prediction_error(self) -> float | None:
        """Predicted over measured time, less 1; None where nothing was measured."""
        if self.measured is None:
            return None
        return (self.measured.predicted_us or self.prediction("time").value) / self.measured.time_us - 1

    def prediction(self, name: str) -> Prediction:
        """Return the prediction called `name`; raises KeyError."""
        for prediction in self.predictions:
            if prediction.name == name:
                return prediction
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class KernelBody:
    """Body of a plan of kind `kernel`: kernels scheduled on one machine (None for loops with their own resources)."""

    machine: Machine | None
    kernels: tuple[KernelPlan, ...]

    def __post_init__(self) -> None:
        names = [kernel.name for kernel in self.kernels]
        if not names or len(set(names)) != len(names):
            raise InvalidValue(message="a kernel plan has at least one kernel, each with a name of its own")

    def kernel(self, name: str) -> KernelPlan:
        """Return the kernel called `name`; raises KeyError."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        raise KeyError(name)
