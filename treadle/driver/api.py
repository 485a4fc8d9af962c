"""The Python face: schedule a loop, look at the proof, emit the kernel, search for the best few."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from treadle.codegen.folder import write_plan
from treadle.codegen.triton.compile import KernelBinary, compile_source, default_cache
from treadle.codegen.triton.emit import emit
from treadle.costmodels.machines import load_machine
from treadle.driver.artifacts import compile_kernels, emit_kernels, timelines
from treadle.driver.kernel import machine_input
from treadle.driver.kernels import KernelOptions, rank_programs
from treadle.driver.programs import ProgramRequest
from treadle.driver.versions import versions
from treadle.ir.certificate import Certificate
from treadle.ir.codec import encode
from treadle.ir.errors import UnknownName
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelBody, KernelPlan
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import Schedule
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.solve import Options
from treadle.solvers.modulo.solve import schedule as schedule_loop
from treadle.verification.core import Review
from treadle.verification.kernel import review_kernel


class KernelSource(str):
    """Emitted source of a kernel; it is its own text, and can be compiled or run."""

    architecture: str

    def compile(self) -> tuple[KernelBinary, ...]:
        """Compile for the plan's machine, without a GPU; raises MissingExtra, CompilationFailed."""
        return compile_source(str(self), self.architecture)

    @property
    def launch(self) -> Callable[..., Any]:
        """The emitted `launch(...)`; needs torch, triton and a GPU (or TRITON_INTERPRET=1)."""
        # Triton reads the source of its kernels back from a file.
        path = _materialize(str(self))
        specification = spec_from_file_location(path.stem, path)
        assert specification is not None
        assert specification.loader is not None
        module = module_from_spec(specification)
        specification.loader.exec_module(module)
        launch: Callable[..., Any] = module.launch
        return launch


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A scheduled loop on a machine."""

    kernel: KernelPlan
    machine: Machine | None

    @property
    def certificate(self) -> Certificate:
        """Levels by name: `plan.certificate["ii"].status`."""
        return self.kernel.certificate

    @property
    def schedule(self) -> Schedule:
        """Start cycles, interval, ring depths."""
        return self.kernel.schedule

    def verify(self) -> Review:
        """Re-derive every claim, without a solver."""
        return review_kernel(self.kernel, self.machine, "", None)

    def emit(self, target: str = "triton") -> KernelSource:
        """Return the source of the kernel.

        Raises:
            UnknownName: no such target. NoProgram: the loop was read from a file.
        """
        if target != "triton":
            raise UnknownName(kind="target", name=target, expected="`triton`")
        source = KernelSource(emit(self.kernel, self.machine))
        source.architecture = self.machine.architecture if self.machine else ""
        return source

    def summary(self) -> str:
        """Return one line: tile sizes, interval with its proof, length, predicted time."""
        interval = self.certificate["ii"]
        sizes = self.kernel.program.tile_sizes if self.kernel.program else {}
        tiles = " ".join(f"{key}={value}" for key, value in sizes.items())
        predicted = f", {self.kernel.prediction('time').value:.1f} us" if self.kernel.predictions else ""
        return (
            f"{self.kernel.name} {tiles}: {interval.value:g} cycles {interval.status.value} [{interval.proof.value}], "
            f"length {self.schedule.length_cycles}{predicted}"
        )

    def save(self, folder: str | Path, compiled: bool = True) -> Plan:
        """Write a plan folder as `treadle kernel -o` does; returns the sealed plan."""
        inputs = (machine_input(self.machine),) if self.machine else ()
        envelope = Plan("kernel", inputs, {"kernel": encode(self.kernel.program)}, versions(), None)
        kernels: tuple[KernelPlan, ...] = (self.kernel,)
        files: dict[str, bytes] = {}
        if self.machine is not None:
            kernels, files = emit_kernels(kernels, self.machine, envelope.expected_id())
            if compiled:
                kernels, files = compile_kernels(kernels, self.machine, files, lambda _: None)
        plan = replace(envelope, body=KernelBody(self.machine, kernels))
        return write_plan(Path(folder), plan, {**files, **timelines(kernels)})


Schedulable = ProgramRequest | TileProgram | Loop


def schedule(loop: Schedulable, machine: str | Path | Machine = "h200", limit_s: float = 1.0) -> Scheduled:
    """Return the best schedule of a loop: least interval, then length, then ring bytes, each with its proof.

    Args:
        loop: a program request (tile sizes are chosen), a tile program, or a bare loop.
        machine: id, file or description; not used for a bare loop, whose costs are its own.
        limit_s: deterministic seconds per question to the solver.

    Raises:
        TreadleError: unknown machine, a shape or memory that does not fit.
    """
    if isinstance(loop, Loop):
        solved = schedule_loop(loop, Options(limits=Limits(deterministic_s=limit_s)))
        return Scheduled(KernelPlan(loop.name, loop, solved.schedule, solved.certificate), None)
    return search(loop, machine, top=1, limit_s=limit_s)[0]


def search(
    loop: ProgramRequest | TileProgram,
    machine: str | Path | Machine = "h200",
    top: int = 5,
    limit_s: float = 1.0,
    executor: Executor | None = None,
) -> list[Scheduled]:
    """Return the `top` tile-size candidates of a program, fastest predicted first, each scheduled and proven.

    `executor` runs candidates side by side; any `concurrent.futures.Executor` will do.
    """
    found = machine if isinstance(machine, Machine) else load_machine(machine)
    candidates = (loop,) if isinstance(loop, TileProgram) else loop.candidates()
    options = KernelOptions(limits=Limits(deterministic_s=limit_s), top=top)
    return [Scheduled(kernel, found) for kernel in rank_programs(candidates, found, options, executor)]


def _materialize(text: str) -> Path:
    """Keep the source in a file of its own, named by content, in a folder only this user can write."""
    folder = default_cache() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernel_{hashlib.sha256(text.encode()).hexdigest()[:16]}.py"
    path.write_text(text, encoding="utf-8")
    return path
