"""`treadle bench`: check and time kernels on a GPU beside what else there is, or prepare a suite that does."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag
from treadle.cli.output import console, number, print_json, say
from treadle.driver.bench import Suite, languages_of, make_suite
from treadle.driver.bench_cases import Case, cases
from treadle.driver.executors import opened
from treadle.driver.gpu.estimate import estimate_line, processes_for
from treadle.driver.gpu_machine import MachineRecord, checked_record, read_record, write_machine
from treadle.driver.kernels import KernelOptions
from treadle.driver.measure import require_gpu, require_suite, run_suite
from treadle.ir.errors import InvalidValue
from treadle.solvers.backend import Limits

CORES = os.cpu_count() or 1
ASSUMED_CORES = 16
"""Of the machine that a suite is prepared for."""
LEAST_SECONDS = 60.0
"""What is left for rows at least, however long preparing took."""


def command(
    suite: Annotated[Path | None, typer.Argument(help="A prepared suite; made in passing unless given.")] = None,
    machine: Annotated[str, typer.Option(help="Machine that kernels are planned for.", metavar="ID")] = "h200",
    prepare: Annotated[
        Path | None, typer.Option(help="Write the suite here and measure nothing: needs no GPU.", metavar="FOLDER")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Cases whose name contains this word.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="triton, gluon, or both unless given.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the rows with their predictions, write nothing.")
    ] = False,
    figures: Annotated[
        Path | None, typer.Option("--machine-file", help="Measure the machine and write its file here.", metavar="FILE")
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(help="With --machine-file: a machine.json that `run.py --machine` wrote.", metavar="JSON"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="No kernel begins after so many seconds.")] = 420,
    seed: Annotated[int | None, typer.Option(help="Of the random inputs; the clock unless given.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Correctness alone (TRITON_INTERPRET=1 on the CPU).")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="All that a run does, on the CPU at small shapes: no figures.")
    ] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")] = Path("results"),
    limit: Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per question to the solver.")] = 0.2,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes that prepare the suite (all cores); it is the same for any.")
    ] = CORES,
    json: JsonFlag = False,
) -> None:
    """Check every kernel against float64, time it beside cuBLAS, cuDNN, flash attention, the Triton tutorials and
    torch.compile, and compare with what was predicted.

    Kernels are compiled and checked side by side, then timed one after the other. Exit status 0: done. 1: a kernel is
    wrong or fails. 2: bad input, or no GPU.
    """
    started = time.monotonic()
    languages = languages_of(language)
    if measured is not None:
        _machine_file_of(figures, machine, measured)
        return
    if suite is not None:
        require_suite(suite, only or ())
    if not (dry_run or prepare is not None or check or rehearse):
        require_gpu()
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as scratch:
        if figures is not None:
            _measure_machine(figures, machine, Path(scratch))
            return
        made = None if suite is not None else _made(machine, only or [], languages, limit, jobs)
        if made is not None and (dry_run or prepare is not None):
            _prepared(made, None if dry_run else prepare, json)
            return
        folder = suite or Path(scratch) / "suite"
        if made is not None:
            made.write(folder)
        # What preparing took is not left for rows: the whole command is over in time.
        left = max(LEAST_SECONDS, seconds - (time.monotonic() - started))
        arguments = _arguments(only or [], left, seed, check=check, rehearse=rehearse)
        record = run_suite(folder, output, arguments)
    _finish(record, output, json)


def _machine_file_of(figures: Path | None, machine: str, measured: Path) -> None:
    """Write the machine file of a record that was measured elsewhere."""
    if figures is None:
        raise InvalidValue(message="--measured is for a machine file", expected="--machine-file FILE beside it")
    _machine_file(figures, machine, read_record(measured))


def _made(machine: str, only: list[str], languages: tuple[str, ...], limit_s: float, jobs: int) -> Suite:
    """Schedule and compile the chosen cases side by side."""
    chosen = chosen_cases(only)
    with opened(min(jobs, len(chosen)), "") as (pool, _):
        return make_suite(machine, KernelOptions(Limits(deterministic_s=limit_s)), _tell, chosen, languages, pool)


def _arguments(only: list[str], left_s: float, seed: int | None, *, check: bool, rehearse: bool) -> list[str]:
    """Return the arguments of the suite's own program."""
    words = [word for name in only for word in ("--only", name)]
    words += ["--seconds", f"{left_s:.0f}", *(["--seed", str(seed)] if seed is not None else [])]
    return [*words, *(["--check"] if check else []), *(["--rehearse"] if rehearse else [])]


def chosen_cases(only: list[str]) -> tuple[Case, ...]:
    """Return the cases whose name contains one of the words; raises InvalidValue when none does."""
    found = tuple(case for case in cases() if not only or any(word in case.name for word in only))
    if not found:
        names = ", ".join(dict.fromkeys(case.family for case in cases()))
        raise InvalidValue(message=f"no case is called {' or '.join(only)}", expected=f"words of names such as {names}")
    return found


def _tell(line: str) -> None:
    say(line)


def _prepared(suite: Suite, folder: Path | None, as_json: bool) -> None:
    """Print the rows; write the suite where a folder is given."""
    if folder is not None:
        suite.write(folder)
        say(f"wrote {folder}: run `python {folder}/run.py` where torch, triton and a GPU are")
    if as_json:
        print_json({"machine": suite.machine.id, "rows": suite.rows})
        return
    out = console()
    for row in suite.rows:
        out.print(_row_line(row), markup=False)
    memory = next((f.value for f in suite.machine.figures if f.name == "memory_capacity_bytes"), 0.0)
    out.print(estimate_line(suite.rows, processes_for(int(memory), ASSUMED_CORES), 420), markup=False)


def _row_line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{row['case']:<48} refused: {row['refused']}"
    tiles = "x".join(str(size) for size in row["tile_sizes"].values())
    rate = f"{row['flops'] / row['predicted_us'] / 1e6:8.0f} TFLOP/s" if row["flops"] else ""
    return f"{row['case']:<48} {tiles:<16} predicted {row['predicted_us']:10.1f} us {rate}".rstrip()


def _measure_machine(file: Path, machine: str, scratch: Path) -> None:
    suite = make_suite(machine, KernelOptions(), _tell, (), ())
    suite.write_code(scratch / "suite")
    found = run_suite(scratch / "suite", scratch, ["--machine"], "machine.json")
    _machine_file(file, machine, checked_record(found, "machine.json"))


def _machine_file(file: Path, machine: str, record: MachineRecord) -> None:
    """Write a machine file, and say what differs from the known machine."""
    _, changes = write_machine(record, machine, file)
    for change in changes:
        doubt = "  hard to believe: measure again" if change.is_far_off else ""
        say(
            f"{change.name:<40} {number(change.after):>14} {change.unit:<16} {machine} has "
            f"{number(change.before)}{doubt}"
        )
    for name, reason in record.failed.items():
        say(f"{name:<40} {'not measured':>14} {reason}")
    say(f"wrote {file}: use it as `--machine {file}`")


def _finish(record: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        print_json(record)
    say(f"wrote {output}/kernel_gpu.json, .txt and .svg")
    bad = [row["case"] for row in record["rows"] if row["state"] in ("wrong", "failed")]
    raise typer.Exit(1 if bad else 0)
