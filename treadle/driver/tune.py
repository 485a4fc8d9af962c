"""Selection by evidence: the best N candidates of a program are timed, and the fastest that is correct is the plan.

Candidates are portable Triton kernels and Gluon kernels side by side: the schedules over warp groups of the best
programs, then further schedules of the best one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.driver.artifacts import Files, Kernels, compile_kernels, emit_kernels, report_of, timelines
from treadle.driver.bench import LANGUAGES, Suite, make_suite
from treadle.driver.bench_cases import Case
from treadle.driver.gluon import file_fitted
from treadle.driver.kernel import KernelRequest, envelope_of, machine_input
from treadle.driver.kernel_groups import simulated
from treadle.driver.kernels import KernelOptions
from treadle.driver.measure import read_times
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelBody, KernelPlan, Measured

Tell = Callable[[str], None]
Measure = Callable[[Path], dict[str, Any]]
"""Runs the suite in a folder and returns its record, as `treadle.driver.measure.run_suite`."""


class NothingMeasured(TreadleError):
    """A run in which no candidate was both correct and timed."""

    code = "TRD544"
    template = "no candidate of `{program}` was measured: {reasons}"
    hint = "without -o nothing is kept; `treadle kernel` makes a plan from predictions alone"
    exit_code = ExitCode.UNMET


class OtherKernels(TreadleError):
    """A record of a run of other kernels than those a program's candidates are here."""

    code = "TRD561"
    template = "{record} is of other kernels than these candidates: {reason}"
    hint = "measure again what `treadle tune ... --prepare FOLDER` writes, with the same options, versions and machine"


def candidates(
    request: KernelRequest, options: KernelOptions, tell: Tell, languages: Sequence[str] = LANGUAGES
) -> Suite:
    """Return the best `options.top` candidates of a program in each language; raises NothingMeasured, TreadleError."""
    case = Case(
        request.program,
        request.program,
        request.shape,
        {"dtype": request.dtype, **request.switches},
        request.tile_sizes,
        top=options.top,
        languages=tuple(languages),
        gluon_top=options.top,
    )
    suite = make_suite(request.machine, options, tell, (case,), languages)
    for row in suite.rows:
        if "refused" in row:
            tell(f"{row['case']}: {row['refused']}")
    if not suite.kernels:
        raise NothingMeasured(program=request.program, reasons=_reasons(suite.rows))
    return suite


def measured_elsewhere(path: Path) -> Measure:
    """Return a measure that takes the record of a run on another machine.

    It raises UnreadableFile, MalformedText, NoTimes, and OtherKernels where the record is not of the suite's kernels.
    """

    def measure(folder: Path) -> dict[str, Any]:
        record = read_times(path)
        found = {row.get("kernel"): row.get("sha256") for row in record["rows"]}
        planned = json.loads((folder / "suite.json").read_text())["rows"]
        for row in planned:
            if "refused" not in row and found.get(row["kernel"]) != row["sha256"]:
                which = "has another source" if row["kernel"] in found else "is not in it"
                raise OtherKernels(record=path, reason=f"{row['kernel']} {which}")
        own = {row.get("kernel") for row in planned}
        return {**record, "rows": [row for row in record["rows"] if row.get("kernel") in own]}

    return measure


def tune(
    request: KernelRequest,
    options: KernelOptions,
    scratch: Path,
    measure: Measure,
    tell: Tell,
    languages: Sequence[str] = LANGUAGES,
) -> tuple[Plan, Files, list[dict[str, Any]]]:
    """Time the best `options.top` candidates of a program, and plan the fastest.

    Args:
        request: program, shape and machine; tile sizes are what is chosen among.
        options: limits, `top` (candidates in each language), and whether binaries are compiled.
        scratch: folder for the suite.
        measure: runs the suite.
        tell: called with a line of progress.
        languages: what candidates are emitted in, `triton` and `gluon`.

    Returns: the unsealed plan, its files, and the rows of the run.

    Raises:
        NoGpu: nothing can be measured here. NothingMeasured. TreadleError: as `treadle kernel`.
    """
    suite = candidates(request, options, tell, languages)
    suite.write(scratch / "suite")
    record = measure(scratch / "suite")
    winner = chosen(suite, record)
    return (*_plan(winner, suite, request, options, tell), record["rows"])


def chosen(suite: Suite, record: Mapping[str, Any]) -> KernelPlan:
    """Return the fastest correct kernel of a run, with what was measured; equal times go to the better prediction.

    Raises:
        NothingMeasured.
    """
    measured = [row for row in record["rows"] if row["state"] == "measured"]
    if not measured:
        program = suite.rows[0]["family"]
        raise NothingMeasured(program=program, reasons=_reasons(record["rows"]))
    best = min(measured, key=lambda row: (row["times_us"]["treadle"], row["predicted_us"]))
    found = record["environment"]
    others = {_described(row): row["times_us"]["treadle"] for row in measured if row is not best}
    kernel = next(kernel for kernel in suite.kernels if kernel.name == best["kernel"])
    own_us = kernel.prediction("time").value
    evidence = Measured(
        time_us=best["times_us"]["treadle"],
        gpu=found.get("gpu", ""),
        driver=found.get("driver_version", ""),
        versions={"torch": found["torch"], "triton": found["triton"]},
        date=found["date"],
        clock_mhz=best.get("clock_mhz"),
        runners_up=others,
        predicted_us=None if best["predicted_us"] == own_us else best["predicted_us"],
    )
    return replace(kernel, name=best["family"], measured=evidence)


def _plan(
    winner: KernelPlan, suite: Suite, request: KernelRequest, options: KernelOptions, tell: Tell
) -> tuple[Plan, Files]:
    machine = suite.machine
    asked = {**encode(request), "tuned": True}
    envelope = envelope_of(asked, (machine_input(machine),), options)
    kernels, files = _emitted(winner, machine, envelope.expected_id(), options, tell)
    kernels = tuple(simulated(kernel, machine) for kernel in kernels)
    files |= timelines(kernels)
    plan = replace(envelope, body=KernelBody(machine, kernels))
    files["report.html"] = report_of(plan, files)
    return plan, files


def _emitted(
    winner: KernelPlan, machine: Machine, plan_id: str, options: KernelOptions, tell: Tell
) -> tuple[Kernels, Files]:
    """Write the winner as it was measured, under its new name."""
    bare = replace(winner, source="", compiled=())
    if winner.language == "gluon":
        kernel, files = file_fitted(bare, machine, plan_id, compiled=options.compiled)
        return (kernel,), files
    kernels, files = emit_kernels((bare,), machine, plan_id)
    return compile_kernels(kernels, machine, files, tell) if options.compiled else (kernels, files)


def _described(row: Mapping[str, Any]) -> str:
    """Return what tells a candidate from the others of its run: language, tile sizes, schedule."""
    sizes = " ".join(f"{key}={value}" for key, value in row["tile_sizes"].items())
    return f"{row['language']} {sizes} ({row['schedule']})"


def _reasons(rows: list[dict[str, Any]]) -> str:
    """Return why rows have no time, each reason once."""
    found = [
        str(row.get("reason") or row.get("refused") or row.get("check", {}).get("reason") or row.get("state"))
        for row in rows
    ]
    return "; ".join(dict.fromkeys(found)) or "it has no candidates"
