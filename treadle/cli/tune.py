"""`treadle tune`: time the best candidates of a program on this GPU, and write the fastest as a plan."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import console, number, print_json, say
from treadle.codegen.folder import write_plan
from treadle.driver.bench import languages_of
from treadle.driver.kernel import KernelRequest
from treadle.driver.kernels import KernelOptions
from treadle.driver.measure import require_gpu, run_suite
from treadle.driver.shapes import parse_shape, parse_switches, shape_for
from treadle.driver.tune import candidates, measured_elsewhere, tune
from treadle.ir.codec import encode
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.kernel import KernelPlan
from treadle.solvers.backend import Limits


def command(
    program: Annotated[str, typer.Argument(help="Program family.", metavar="PROGRAM")],
    machine: Annotated[str, typer.Option(help="Machine id or machine file.", metavar="ID")] = "h200",
    shape: Annotated[str, typer.Option(help='Extents, such as "batch=4 heads=32 seq=16k".')] = "",
    tiles: Annotated[str, typer.Option(help="Tile sizes, when only they are to be measured.")] = "",
    dtype: Annotated[str, typer.Option(help="Element type of the operands.")] = "bfloat16",
    switches: Annotated[str, typer.Option(help="Switches of the family.", metavar="SWITCHES")] = "",
    top: Annotated[int, typer.Option(min=1, help="Time the N best predicted candidates of each language.")] = 8,
    language: Annotated[list[str] | None, typer.Option(help="triton, gluon, or both unless given.")] = None,
    limit: Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per question to the solver.")] = 0.2,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile to binaries.")] = True,
    prepare: Annotated[
        Path | None,
        typer.Option(help="Write the candidates here for another machine and measure nothing.", metavar="FOLDER"),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(help="Take the times of a run there: its kernel_gpu.json. Needs no GPU.", metavar="JSON"),
    ] = None,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Time the N best predicted candidates of PROGRAM at a shape, and keep the fastest that is correct.

    The plan says what was measured, where, and how far the prediction was off. Exit status 0: done. 1: no candidate is
    correct, or none fits. 2: bad input, or no GPU.
    """
    request = KernelRequest(
        program, machine, shape_for(program, shape), parse_shape(tiles), dtype, parse_switches(switches)
    )
    languages = languages_of(language)
    if prepare is not None and measured is not None:
        raise InvalidValue(message="--prepare and --measured are two ends of one run", expected="one of them")
    if prepare is None and measured is None:
        require_gpu()
    options = KernelOptions(Limits(deterministic_s=limit), top=top, compiled=compiled)
    if prepare is not None:
        candidates(request, options, _tell, languages).write(prepare)
        say(f"wrote {prepare}: run `python {prepare}/run.py --out results` where torch, triton and a GPU are, then the")
        say("same command with --measured results/kernel_gpu.json instead of --prepare")
        return
    with tempfile.TemporaryDirectory(prefix="treadle-tune-") as scratch:
        folder = Path(scratch)
        results = folder / "results"
        measure = partial(run_suite, out=results) if measured is None else measured_elsewhere(measured)
        plan, files, rows = tune(request, options, folder, measure, _tell, languages)
    (kernel,) = plan.body.kernels
    if output is not None:
        written = write_plan(output, plan, files)
        say(f"wrote {output} (plan {written.id})")
    _report(kernel, rows, json)


def _tell(line: str) -> None:
    say(line)


def _report(kernel: KernelPlan, rows: list[dict[str, Any]], as_json: bool) -> None:
    measured, error = kernel.measured, kernel.prediction_error
    assert measured is not None
    assert error is not None
    sizes = kernel.program.tile_sizes if kernel.program else {}
    if as_json:
        print_json(
            {"tile_sizes": sizes, "measured": encode(measured), "prediction_error": round(error, 4), "rows": rows}
        )
        return
    chosen = " ".join(f"{key}={value}" for key, value in sizes.items())
    console().print(
        f"{kernel.name} ({chosen}): {number(measured.time_us)} us on {measured.gpu}, predicted {error:+.0%}",
        markup=False,
    )
    for name, time_us in sorted(measured.runners_up.items(), key=lambda item: item[1]):
        console().print(f"  {name}: {number(time_us)} us", markup=False)
