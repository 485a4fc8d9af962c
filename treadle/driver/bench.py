"""Prepares a suite for a GPU machine: schedules, kernels, predictions and the code that measures, in one plan folder.

Where it runs, the folder needs torch and triton and nothing else: `python FOLDER/run.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from treadle.codegen.folder import write_plan
from treadle.codegen.gluon.errors import NoGluonFrame
from treadle.costmodels.machines import load_machine
from treadle.costmodels.tile_traffic import compulsory_bytes
from treadle.driver.artifacts import emit_kernels
from treadle.driver.bench_cases import Case, cases, useful_flops
from treadle.driver.gluon import fit_kernels
from treadle.driver.kernel import machine_input
from treadle.driver.kernel_groups import further_schedules, simulated
from treadle.driver.kernels import KernelOptions, plan_program, rank_programs
from treadle.driver.versions import versions
from treadle.frontends import programs
from treadle.ir.codec import encode
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import Defect, InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelBody, KernelPlan, Room

GPU_MODULES = Path(__file__).with_name("gpu")
RUN = '''"""Runs the suite in this folder; see `python run.py --help`."""

import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
sys.path.insert(0, str(folder))

from treadle.driver.gpu.run import main  # noqa: E402 - the path is set above

raise SystemExit(main(folder))
'''

Tell = Callable[[str], None]
Row = dict[str, Any]


LANGUAGES = ("triton", "gluon")
SPARE = 3
"""Further candidates of a Gluon kernel, for those that cannot be emitted or whose binaries do not keep their plans."""


def languages_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """Return the languages that words name, all of them for no words; raises InvalidValue for a word that is none."""
    for word in words or ():
        if word not in LANGUAGES:
            raise InvalidValue(message=f"no kernels are emitted in `{word}`", expected=" or ".join(LANGUAGES))
    return tuple(dict.fromkeys(words)) if words else LANGUAGES


@dataclass
class Suite:
    """A suite in the making: rows of the manifest, scheduled kernels, and files by path."""

    machine: Machine
    options: KernelOptions
    plan: Plan
    rows: list[Row] = field(default_factory=list[Row])
    kernels: list[KernelPlan] = field(default_factory=list[KernelPlan])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def add(self, case: Case, language: str) -> None:
        """Schedule and emit a case; what cannot be done is a row that says why."""
        gluon = language == "gluon"
        top = case.gluon_top if gluon else case.top
        try:
            ranked = _ranked(case, self.machine, replace(self.options, top=top))
        except TreadleError as error:
            self.rows.append(_refused(case, language, error))
            return
        added = self._add_all(case, language, ranked, top)
        if gluon and len(added) < top and not case.tile_sizes and not self._has_no_frame(case):
            spare = _ranked(case, self.machine, replace(self.options, top=top + SPARE))
            added += self._add_all(case, language, spare, top - len(added), len(ranked))
            ranked = spare
        if gluon and added:
            further = _other_schedules(added[0], top - len(added), self.options)
            for rank, plan in enumerate(further, len(ranked)):
                self._add(case, language, plan, rank)

    def _has_no_frame(self, case: Case) -> bool:
        """Whether the case's family has no Gluon kernel at all, whatever the candidate."""
        said = self.rows[-1].get("refused", "") if self.rows else ""
        return bool(self.rows) and self.rows[-1]["problem"] == case.name and said.startswith(NoGluonFrame.code)

    def _add_all(
        self, case: Case, language: str, ranked: Sequence[KernelPlan], most: int, first: int = 0
    ) -> list[KernelPlan]:
        """Add candidates from the one of rank `first` on, until `most` were emitted; returns those."""
        added: list[KernelPlan] = []
        for rank, plan in enumerate(ranked):
            if rank >= first and len(added) < most:
                kernel = self._add(case, language, plan, rank)
                added += [kernel] if kernel is not None else []
        return added

    def take(self, other: Suite) -> None:
        """Take over what another suite for the same machine has."""
        self.rows += other.rows
        self.kernels += other.kernels
        self.files |= other.files

    def _add(self, case: Case, language: str, plan: KernelPlan, rank: int) -> KernelPlan | None:
        """Emit a candidate and add its row; None where it cannot be, or is the same as one before it."""
        name = f"{_word(case.name)}_{language}_{rank + 1}"
        try:
            kernel, files = self._emitted(replace(plan, name=name), language)
            row = _row(case, language, kernel, files[kernel.source], predicted_us(kernel, self.machine))
        except Exception as error:  # a defect in one emitter must not cost the other rows, and must be seen
            self.rows.append(_refused(case, language, error))
            return None
        if any(_same(kernel, other) for other in self.kernels):
            return None
        self.kernels.append(kernel)
        self.files |= files
        self.rows.append(row)
        return kernel

    def _emitted(self, plan: KernelPlan, language: str) -> tuple[KernelPlan, dict[str, bytes]]:
        plan_id = self.plan.expected_id()
        if language == "gluon":
            options = replace(self.options, language=language)
            (kernel,), files = fit_kernels((plan,), self.machine, options, plan_id, lambda _: None)
        else:
            (kernel,), files = emit_kernels((plan,), self.machine, plan_id)
        return kernel, files

    def write(self, folder: Path) -> Plan:
        """Write the suite as a plan folder and return its plan; raises UnwritablePath."""
        about = {"machine": self.machine.id, "machine_name": self.machine.name, "plan": self.plan.expected_id()}
        manifest = {**about, "versions": versions(), "rows": self.rows}
        files = {
            **self.files,
            "suite.json": (json.dumps(manifest, indent=1) + "\n").encode(),
            "run.py": RUN.encode(),
            **_measuring_code(),
        }
        body = KernelBody(self.machine, tuple(self.kernels))
        return write_plan(folder, replace(self.plan, body=body), files)

    def write_code(self, folder: Path) -> None:
        """Write what measures, without kernels; raises OSError."""
        for path, data in {**_measuring_code(), "run.py": RUN.encode()}.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def make_suite(
    machine_id: str,
    options: KernelOptions,
    tell: Tell,
    chosen: Sequence[Case] | None = None,
    languages: Sequence[str] = LANGUAGES,
    executor: Executor | None = None,
) -> Suite:
    """Return a suite for a machine.

    Args:
        machine_id: whom the kernels are scheduled and predicted for.
        options: limits of the schedules; `compiled` compiles Gluon kernels to check them against their plans.
        tell: called with a line of progress.
        chosen: cases; those of `bench_cases` unless given.
        languages: of those a case asks for, the ones to emit.
        executor: prepares cases side by side; one after the other unless given. The suite is the same.

    Raises:
        TreadleError: unknown machine; nothing could be prepared.
    """
    machine = load_machine(machine_id)
    wanted = cases() if chosen is None else tuple(chosen)
    asked = {"suite": [case.name for case in wanted], "languages": list(languages), **options.recorded()}
    suite = Suite(machine, options, Plan("kernel", (machine_input(machine),), asked, versions(), None))
    mapped = executor.map if executor else map
    for case, part in zip(wanted, mapped(partial(_part, suite, languages), wanted), strict=True):
        suite.take(part)
        tell(case.name)
    return suite


def _part(suite: Suite, languages: Sequence[str], case: Case) -> Suite:
    """Return a suite of one case: cases do not depend on each other, and may be prepared in processes of their own."""
    part = replace(suite, rows=[], kernels=[], files={})
    for language in case.languages:
        if language in languages:
            part.add(case, language)
    return part


def _measuring_code() -> dict[str, bytes]:
    """Return the modules that measure, in packages that stand alone."""
    base = "treadle/driver/gpu"
    files = {f"{base}/{path.name}": path.read_bytes() for path in sorted(GPU_MODULES.glob("*.py"))}
    return {"treadle/__init__.py": b"", "treadle/driver/__init__.py": b"", **files}


def _ranked(case: Case, machine: Machine, options: KernelOptions) -> list[KernelPlan]:
    if case.tile_sizes:
        program = programs.build(case.family, case.shape, case.tile_sizes, case.switches)
        return [plan_program(program, machine, options)]
    return rank_programs(programs.candidates(case.family, case.shape, case.switches), machine, options)


def _same(one: KernelPlan, other: KernelPlan) -> bool:
    """Whether two kernels run the same schedule: different tiles may become the same ones over warp groups."""
    return (one.language, one.program, one.schedule, one.groups) == (
        other.language,
        other.program,
        other.schedule,
        other.groups,
    )


def _other_schedules(kernel: KernelPlan, count: int, options: KernelOptions) -> list[KernelPlan]:
    """Return further schedules of a kernel's loop, where compiling it took no room from its problem."""
    if kernel.groups is None or kernel.groups.room != Room() or count < 1:
        return []
    plain = replace(kernel, source="", compiled=(), attempts=(), groups=replace(kernel.groups, budget=()))
    return further_schedules(plain, count, options, lambda _: None)


def predicted_us(kernel: KernelPlan, machine: Machine) -> float:
    """Return the predicted time: of a schedule over warp groups as it is simulated, where it is, else the plan's own.

    Simulated waves take no less than the bytes that must be moved, and the floor of a launch besides.
    """
    own = kernel.prediction("time").value
    if kernel.language != "gluon" or kernel.program is None:
        return own
    run = {figure.name: figure.value for figure in simulated(kernel, machine).simulated}
    if not run:
        return own
    least_us = compulsory_bytes(kernel.program) / machine.value("memory_bandwidth_sustained_bytes_per_s") * 1e6
    busy_us = run["grid_cycles"] / (kernel.prediction("clock").value * 1e3)
    return max(busy_us, least_us) + machine.value("kernel_floor_us")


def _row(case: Case, language: str, kernel: KernelPlan, source: bytes, predicted: float) -> Row:
    program = kernel.program
    assert program is not None
    return {
        "case": f"{case.name} ({language})" if language != "triton" else case.name,
        "group": f"{case.name} ({language})",
        "family": case.family,
        "language": language,
        "shape": program.shape,
        "options": program.options,
        "tile_sizes": program.tile_sizes,
        "problem": case.name,
        "line": case.line,
        "goal": case.goal,
        "kernel": kernel.name,
        "source": kernel.source,
        "sha256": hashlib.sha256(source).hexdigest(),
        "ii_cycles": (kernel.groups.schedule.schedule if kernel.groups else kernel.schedule).ii_cycles,
        "schedule": _schedule_digest(kernel),
        "predicted_us": predicted,
        "predicted_clock_ghz": kernel.prediction("clock").value,
        "flops": useful_flops(case.family, program.shape),
        "bytes": compulsory_bytes(program),
    }


def _schedule_digest(kernel: KernelPlan) -> str:
    """Return what tells schedules of the same tiles apart."""
    schedule = encode(kernel.groups.schedule if kernel.groups else kernel.schedule)
    return hashlib.sha256(json.dumps(schedule, sort_keys=True).encode()).hexdigest()[:8]


def _refused(case: Case, language: str, error: Exception) -> Row:
    code = error.code if isinstance(error, TreadleError) else f"{Defect.code} ({type(error).__name__})"
    return {
        "case": f"{case.name} ({language})",
        "group": f"{case.name} ({language})",
        "family": case.family,
        "language": language,
        "problem": case.name,
        "line": case.line,
        "goal": case.goal,
        "refused": f"{code}: {error}",
    }


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_")
