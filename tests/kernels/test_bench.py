"""Suites: what is prepared, what a run makes of it with a timer of its own, and what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.suites import QUICK, invoke, quiet
from treadle.cli.bench import chosen_cases
from treadle.codegen.gluon.errors import NotEmittable
from treadle.costmodels.machines import load_machine, load_machine_file
from treadle.driver import measure
from treadle.driver.bench import Suite, make_suite
from treadle.driver.bench_cases import Case, cases, useful_flops
from treadle.driver.gpu import contenders, suite
from treadle.driver.gpu.families import FAMILIES, Source
from treadle.driver.gpu.plot import plot
from treadle.driver.gpu.report import judge, lines_of, lines_table, statistics_of, text_table
from treadle.driver.gpu.run import write
from treadle.driver.gpu.suite import Bench
from treadle.driver.gpu.timing import Deadline, Run, medians_us, rotating_sets, spearman
from treadle.driver.gpu_machine import checked_record, machine_text, measured_machine, write_machine
from treadle.frontends import programs
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.kernel import KernelPlan
from treadle.verification.core import review_plan

SMALL = Case("gemm small", "gemm", {"m": 48, "n": 64, "k": 40}, goal={"speedup": {"cublas": 0.5}}, top=3)
NORM = Case("layer_norm small", "layer_norm", {"rows": 9, "columns": 40}, languages=("triton",))


class FakeTimer:
    """Every run happens, and takes what the script says: contenders are told apart by the order of their first run."""

    def __init__(self, *times_us: float) -> None:
        self.script = times_us
        self.known: list[Run] = []
        self.runs = 0

    def times_us(self, run: Run, repeats: int, first: int) -> list[float]:
        if run not in self.known:
            self.known.append(run)
            run(first)
        self.runs += repeats
        return [self.script[self.known.index(run) % len(self.script)]] * repeats


def as_it_is(function: Any, **_: Any) -> Any:
    """What torch.compile is here."""
    return function


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b.T


def prepared(*chosen: Case) -> Suite:
    return make_suite("h200", QUICK, quiet, chosen, ("triton",))


@pytest.fixture
def run(tmp_path: Path, interpreter: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run a suite on the CPU: kernels by the interpreter, times by the script."""
    monkeypatch.setattr(contenders, "_tutorial_matmul", product)
    monkeypatch.setattr(torch, "compile", as_it_is)
    for name, family in FAMILIES.items():
        small = {key: min(value, 40) for key, value in family.ragged.items()}
        monkeypatch.setitem(FAMILIES, name, replace(family, ragged=small))

    def build(made: Suite, timer: FakeTimer, seconds: float = 100.0) -> dict[str, Any]:
        made.write(tmp_path / "suite")
        return Bench(tmp_path / "suite", 1, timer, "cpu", quiet).run(Deadline(seconds))

    return build


def test_cases_cover_every_family_a_user_would_time_and_name_known_ones() -> None:
    for case in cases():
        shape = programs.family(case.family).check_shape(case.shape)
        assert useful_flops(case.family, shape) >= 0
        assert programs.candidates(case.family, case.shape, case.switches)
    assert {case.family for case in cases()} >= {"gemm", "attention_fwd", "attention_bwd", "attention_paged", "swiglu"}
    assert len({case.name for case in cases()}) == len(cases())
    assert [case.family for case in chosen_cases(["kmeans"])] == ["kmeans_assign"]
    with pytest.raises(InvalidValue, match="no case is called nonsense"):
        chosen_cases(["nonsense"])


def test_a_gluon_kernel_that_cannot_be_emitted_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal stays a row; further candidates are tried, no more than a few."""
    tried: list[str] = []

    def emitted(made: Suite, plan: KernelPlan, language: str) -> tuple[KernelPlan, dict[str, bytes]]:
        tried.append(plan.name)
        if len(tried) == 1:
            raise NotEmittable(kernel=plan.name, reason="of no frame")
        source = f"kernels/{plan.name}.py"
        return replace(plan, source=source, language=language), {source: b""}

    monkeypatch.setattr(Suite, "_emitted", emitted)
    case = replace(SMALL, shape={"m": 512, "n": 512, "k": 512}, languages=("gluon",), gluon_top=1)
    rows = make_suite("h200", QUICK, quiet, (case,), ("gluon",)).rows
    assert tried == ["gemm_small_gluon_1", "gemm_small_gluon_2"]
    assert ["refused" in one for one in rows] == [True, False]


def test_useful_work_is_that_of_the_problem() -> None:
    square = {"m": 2, "n": 3, "k": 5}
    assert useful_flops("gemm", square) == 60
    assert useful_flops("swiglu", square) == 120
    heads = {"batch": 1, "heads": 2, "seq": 4, "kv_seq": 4, "qk_head_dim": 8, "v_head_dim": 8, "causal": 0}
    assert useful_flops("attention_fwd", heads) == 2 * 2 * 16 * 16
    assert useful_flops("attention_bwd", {**heads, "causal": 1}) == 2.5 * 2 * 16 * 16
    assert useful_flops("rms_norm", {"rows": 8, "columns": 8}) == 0


def test_a_prepared_suite_is_a_plan_that_verifies(tmp_path: Path) -> None:
    made = prepared(replace(SMALL, shape={"m": 512, "n": 512, "k": 512}), NORM)
    plan = made.write(tmp_path / "suite")
    assert review_plan(plan, tmp_path / "suite").findings == ()
    rows = json.loads((tmp_path / "suite" / "suite.json").read_text())["rows"]
    assert [row["case"] for row in rows] == ["gemm small"] * 3 + ["layer_norm small"]
    assert len({tuple(row["tile_sizes"].values()) for row in rows[:3]}) == 3
    assert rows[0]["predicted_us"] <= rows[1]["predicted_us"] <= rows[2]["predicted_us"]


def test_a_suite_stands_alone_and_checks_itself_on_the_cpu(tmp_path: Path) -> None:
    """Its own copy of the measuring code runs, with torch and triton and nothing of treadle."""
    prepared(NORM).write(tmp_path / "suite")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-P", str(tmp_path / "suite" / "run.py"), "--check", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "checked" in done.stdout
    record = json.loads((tmp_path / "out" / "kernel_gpu.json").read_text())
    assert record["rows"][0]["check"]["correct"] is True
    files = {path.name for path in (tmp_path / "suite" / "treadle").rglob("*.py")}
    assert "suite.py" in files
    assert "emit.py" not in files


def test_without_a_gpu_a_run_ends_with_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(NORM)
    made.write(tmp_path / "suite")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(measure.NoGpu, match="no CUDA device"):
        measure.run_suite(tmp_path / "suite", tmp_path / "out")
    with pytest.raises(measure.NoGpu):
        measure.require_gpu()


def test_a_run_checks_times_and_compares(run: Callable[..., dict[str, Any]]) -> None:
    timer = FakeTimer(10.0, 12.0, 15.0)
    record = run(prepared(replace(SMALL, top=1)), timer)
    (row,) = record["rows"]
    assert row["state"] == "measured", row
    assert row["check"]["correct"] is True
    assert row["times_us"] == {"treadle": 10.0, "cublas": 12.0, "triton_tutorial": 15.0}
    assert row["speedup"] == {"cublas": 1.2, "triton_tutorial": 1.5}
    assert row["differences"]["cublas"] < 0.01
    assert row["tflops"] == pytest.approx(2 * 48 * 64 * 40 / 10.0 / 1e6)
    assert row["prediction_error"] == pytest.approx(row["predicted_us"] / 10.0 - 1)
    assert timer.runs > 3 * 3


def test_kernels_that_compute_something_else_are_not_timed(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FAMILIES["gemm"].reference

    def wrong(*given: Any) -> tuple[torch.Tensor, ...]:
        return tuple(result + 1 for result in honest(*given))

    spoilt = replace(FAMILIES["gemm"], reference=wrong)
    monkeypatch.setitem(FAMILIES, "gemm", spoilt)
    (row,) = run(prepared(replace(SMALL, top=1)), FakeTimer(1.0))["rows"]
    assert row["state"] == "wrong"
    assert "relative error" in row["check"]["reason"]
    assert "times_us" not in row


def test_what_fails_stops_nothing_else(run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(FAMILIES, "gemm", replace(FAMILIES["gemm"], inputs=broken))
    impossible = Case("too wide", "layer_norm", {"rows": 8, "columns": 1 << 20}, languages=("triton",))
    record = run(prepared(replace(SMALL, top=1), impossible, NORM), FakeTimer(5.0))
    states = {row["case"]: row["state"] for row in record["rows"]}
    assert states == {"gemm small": "failed", "too wide (triton)": "refused", "layer_norm small": "measured"}
    assert "out of memory" in record["rows"][0]["reason"]
    assert "TRD503" in record["rows"][1]["refused"]


def test_a_contender_this_torch_lacks_is_left_out(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> Any:
        raise RuntimeError("no kernel found")

    monkeypatch.setattr(contenders, "_matmul", missing)
    (row,) = run(prepared(replace(SMALL, top=1)), FakeTimer(5.0, 6.0))["rows"]
    assert row["contenders_left_out"] == {"cublas": "RuntimeError: no kernel found"}
    assert set(row["times_us"]) == {"treadle", "triton_tutorial"}


def test_nothing_begins_after_the_deadline(run: Callable[..., dict[str, Any]]) -> None:
    record = run(prepared(NORM), FakeTimer(5.0), seconds=0.0)
    assert [row["state"] for row in record["rows"]] == ["not measured (budget)"]


def test_a_changed_kernel_is_not_run(tmp_path: Path, interpreter: None) -> None:
    prepared(NORM).write(tmp_path / "suite")
    (source,) = (tmp_path / "suite" / "kernels").glob("*.py")
    source.write_text(source.read_text() + "\n")
    (row,) = Bench(tmp_path / "suite", 1, FakeTimer(1.0), "cpu", quiet).run(Deadline(9.0))["rows"]
    assert row["state"] == "failed"
    assert "not the file that was prepared" in row["reason"]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_has_inputs_that_its_kernels_take(
    family: str, tmp_path: Path, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a shape no larger than the interpreter likes; the reference is that of the run on the GPU."""
    small = {key: min(value, 70) for key, value in FAMILIES[family].ragged.items()}
    if family == "gemm_w4a16":
        small["k"] = 128
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], ragged=small))
    shape = {
        "attention_bwd": {"batch": 1, "heads": 2, "kv_heads": 1, "seq": 64, "qk_head_dim": 16, "causal": 1},
        "attention_decode": {"batch": 2, "heads": 2, "kv_heads": 1, "kv_seq": 64, "qk_head_dim": 16},
        "attention_fwd": {"batch": 1, "heads": 2, "kv_heads": 1, "seq": 64, "qk_head_dim": 16, "causal": 1},
        "attention_paged": {"batch": 2, "heads": 2, "kv_heads": 1, "kv_seq": 64, "page_size": 16, "qk_head_dim": 16},
        "attention_varlen": {"batch": 2, "tokens": 64, "heads": 2, "kv_heads": 1, "qk_head_dim": 16},
        "grouped_gemm": {"experts": 4, "tokens": 30, "top_k": 2, "n": 40, "k": 24},
        "kmeans_assign": {"points": 40, "centroids": 40, "dimension": 16},
        "layer_norm": {"rows": 8, "columns": 40},
        "rms_norm": {"rows": 8, "columns": 40},
    }.get(family, {"m": 48, "n": 64, "k": 128})
    prepared(Case(family, family, shape, languages=("triton",))).write(tmp_path / "suite")
    bench = Bench(tmp_path / "suite", 7, FakeTimer(1.0), "cpu", quiet, full_shapes=False)
    (row,) = bench.run(Deadline(60.0))["rows"]
    assert row["state"] == "checked", row


def test_every_family_has_contenders_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", as_it_is)
    for case in cases():
        shape = programs.family(case.family).check_shape(case.shape)
        options = programs.family(case.family).check_options(case.switches)
        found = contenders.contenders(case.family, shape, options)
        assert found or case.family in contenders.WITHOUT or options.get("scales") == "block"
        assert set(case.goal.get("speedup", {})) <= set(found)


# --- figures ----------------------------------------------------------------------------------------------------------


def row(case: str, time_us: float, predicted_us: float, **more: Any) -> dict[str, Any]:
    return {
        "case": case, "group": case, "problem": case, "language": "triton", "state": "measured",
        "times_us": {"treadle": time_us, "cublas": 2 * time_us},
        "speedup": {"cublas": 2.0}, "predicted_us": predicted_us, "prediction_error": predicted_us / time_us - 1,
        "tflops": 100.0, "gb_per_s": 50.0, "flops": 1, "bytes": 1, "tile_sizes": {"block_m": 64},
        "predicted_cycles": 1.5e3 * predicted_us, "measured_cycles": 1.6e3 * time_us, "clock_mhz": 1600.0,
        "cycles_error": 1.5 * predicted_us / (1.6 * time_us) - 1, **more,
    }  # fmt: skip


def test_statistics_of_predictions() -> None:
    rows = [row("a", 10.0, 11.0), row("a", 20.0, 18.0), row("a", 30.0, 33.0), {"case": "b", "state": "refused"}]
    found = statistics_of(rows)
    assert found["prediction_mape"] == pytest.approx(0.1)
    assert found["cycles_mape"] == pytest.approx((0.03125 + 0.15625 + 0.03125) / 3)
    assert found["rank_correlation"] == 1.0
    assert (found["measured"], found["refused"], found["rows"]) == (3, 1, 4)
    assert statistics_of([])["prediction_mape"] is None


def test_goals_are_judged_only_where_something_was_measured() -> None:
    rows = [
        row("fast", 1.0, 1.0, goal={"tflops": 90, "speedup": {"cublas": 1.5}}),
        row("slow", 1.0, 1.0, goal={"tflops": 110}),
        row("memory", 1.0, 1.0, goal={"bandwidth": 0.85}),
        row("absent", 1.0, 1.0, goal={"speedup": {"cudnn": 1.0}}),
        {"case": "refused", "state": "refused", "goal": {"tflops": 1}},
    ]
    judge(rows, 55.0)
    assert [one.get("goal_met") for one in rows] == [True, False, True, None, None]
    judge(rows[2:3], 60.0)
    assert rows[2]["goal_met"] is False


def test_lines_are_judged_over_their_problems() -> None:
    """The fastest kernel of a problem counts; products by the geometric mean, others by the worst; gaps are said."""

    def gemm(problem: str, time_us: float, cublas: float) -> dict[str, Any]:
        more = {"problem": problem, "line": "gemm", "family": "gemm", "goal": {"speedup": {"cublas": 1.01}}}
        return row(problem, time_us, 1.0, speedup={"cublas": cublas}, **more)

    def decode(problem: str, share: float) -> dict[str, Any]:
        more = {"problem": problem, "line": "decode", "family": "attention_paged", "goal": {"bandwidth": 0.85}}
        return row(problem, 1.0, 1.0, bandwidth_share=share, **more)

    rows = [gemm("a", 10.0, 0.9), gemm("a", 9.0, 1.0), gemm("b", 5.0, 1.21), decode("c", 0.9), decode("d", 0.8)]
    figures = {"cycles_mape": 0.1, "rank_correlation": None}
    found = lines_of(rows, figures)
    assert [(line["line"], line["verdict"]) for line in found] == [
        ("gemm", "met"), ("decode", "missed"), ("predictions", "met"), ("predictions", "not measured")
    ]  # fmt: skip
    assert found[0]["value"] == pytest.approx(1.1)
    assert found[1]["value"] == 0.8
    rows[2]["state"] = "failed"
    assert lines_of(rows, figures)[0]["verdict"] == "not measured"
    assert "not measured" in lines_table(lines_of(rows, figures))


def test_every_promised_line_has_problems_and_contenders_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", as_it_is)
    lines = {case.line for case in cases() if case.line}
    assert len(lines) == 9
    depths = [case.shape["k"] for case in cases() if case.line.startswith("gemm 8192")]
    assert sorted(depths) == [512, 1024, 2048, 4096, 8192, 16384]
    for case in (case for case in cases() if case.line):
        assert case.languages == ("triton", "gluon")
        assert case.goal
        same = [other.goal for other in cases() if other.line == case.line]
        assert all(goal == case.goal for goal in same)


def test_table_and_plot_show_every_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        row("gemm <1>", 10.0, 11.0, goal={"tflops": 90}),
        row("memory", 40.0, 30.0, flops=0, language="gluon", bandwidth_share=0.87),
        {"case": "none", "state": "refused", "refused": "no <b>"},
        {"case": "late", "state": suite.OUT_OF_TIME, "predicted_cycles": 7e3},
    ]
    environment = {"gpu": "H200 & co", "driver_version": "580.1", "torch": "2.11", "date": "2026-11-21"}
    record: dict[str, Any] = {
        "rows": rows,
        "environment": environment,
        "seed": 3,
        "bandwidth_gb_per_s": None,
        "spent_s": {"time": 9.0},
    }
    rows[0]["differences"] = {"cublas": float("nan")}
    assert write(record, tmp_path) == 0
    assert json.loads((tmp_path / "kernel_gpu.json").read_text())["rows"][0]["differences"] == {"cublas": None}
    table = (tmp_path / "kernel_gpu.txt").read_text()
    assert table.startswith("H200 & co, driver 580.1, torch 2.11, seed 3, time 9 s, 2026-11-21")
    for words in ("gemm <1>", "+3%", "met", "refused", "no <b>", "not measured (budget)", "87% of memory bandwidth"):
        assert words in table
    assert record["figures"]["not_measured_budget"] == 1
    svg = (tmp_path / "kernel_gpu.svg").read_text()
    for words in ("gemm &lt;1&gt;", "H200 &amp; co", "treadle, gluon", "40 us", "cublas", "15 % off", "driver 580.1"):
        assert words in svg
    assert svg.count("<circle") == 2
    assert len(text_table(rows).splitlines()) == 6
    assert "</svg>" in plot([], {})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_rank_correlation(first: list[float], second: list[float], expected: float | None) -> None:
    assert spearman(first, second) == (pytest.approx(expected) if expected is not None else None)


def test_medians_take_turns_and_rotate() -> None:
    def nothing(_: int) -> None:
        pass

    timer = FakeTimer(5000.0, 10_000.0)
    runs: dict[str, Run] = {"a": nothing, "b": partial(nothing)}
    assert medians_us(runs, timer, rounds=3, round_us=20_000, most=4) == {"a": 5000.0, "b": 10_000.0}
    assert timer.runs == 2 * 6 + 3 * (4 + 3)


def test_inputs_rotate_past_the_cache_and_within_memory() -> None:
    assert rotating_sets(1 << 20, 64 << 20, 1 << 40) == 16
    assert rotating_sets(100 << 20, 64 << 20, 1 << 40) == 3
    assert rotating_sets(10 << 30, 64 << 20, 24 << 30) == 2
    assert rotating_sets(100 << 30, 64 << 20, 24 << 30) == 1


def test_random_inputs_follow_the_seed() -> None:
    one, other, again = (Source(seed, "cpu", "bfloat16").normal(4) for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


# --- machine files ----------------------------------------------------------------------------------------------------

FOUND = {
    "environment": {
        "gpu": "NVIDIA H200", "capability": [9, 0], "driver_version": "570.1", "torch": "2.11", "triton": "3.6",
        "date": "2026-11-21",
    },
    "figures": {"mbarrier_cycles": {"value": 80.5, "unit": "cycle"}, "sm_count": {"value": 132, "unit": "SM"}},
    "failed": {},
}  # fmt: skip


def test_a_measured_machine_is_the_known_one_with_its_own_figures(tmp_path: Path) -> None:
    written, changes = write_machine(checked_record(FOUND, "machine.json"), "h200", tmp_path / "mine.toml")
    assert load_machine_file(tmp_path / "mine.toml") == written
    figure = written.figure("mbarrier_cycles")
    assert (figure.value, figure.basis.value, figure.date) == (80.5, "measured", "2026-11-21")
    assert "driver 570.1" in figure.source
    base = load_machine("h200")
    assert written.value("l2_latency_cycles") == base.value("l2_latency_cycles")
    assert [one.name for one in written.figures] == [one.name for one in base.figures]
    assert {change.name: (change.before, change.after) for change in changes} == {
        "mbarrier_cycles": (92, 80.5), "sm_count": (132, 132)
    }  # fmt: skip


def test_every_shipped_machine_reads_back_from_its_text(tmp_path: Path) -> None:
    for name in ("h200", "mi300x"):
        machine = load_machine(name)
        path = tmp_path / f"{name}.toml"
        path.write_text(machine_text(machine))
        assert load_machine_file(path) == machine


def test_another_architecture_is_refused() -> None:
    with pytest.raises(InvalidValue, match="is sm_90; `b200` is sm_100"):
        measured_machine(checked_record(FOUND, "machine.json"), load_machine("b200"))


def test_measured_figures_are_those_of_machine_files() -> None:
    """The names are read from the source: the module compiles Triton kernels when it is imported."""
    text = (Path(suite.__file__).with_name("machine.py")).read_text()
    names = [line.split('"')[1] for line in text.split("MEASUREMENTS: ")[1].splitlines() if line.startswith('    "')]
    known = {figure.name for figure in load_machine("h200").figures}
    assert len(names) >= 14
    assert set(names) <= known


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_rows_with_predictions() -> None:
    status, text = invoke("bench", "--dry-run", "--only", "layer_norm")
    assert status == 0
    assert "layer_norm 8192x4096" in text
    assert "predicted" in text


@pytest.mark.parametrize("arguments", [("bench",), ("tune", "gemm"), ("bench", "--machine-file", "x.toml")])
def test_measuring_without_a_gpu_is_a_coded_error(arguments: tuple[str, ...]) -> None:
    status, text = invoke(*arguments)
    assert status == 2
    assert "TRD542" in text


def test_prepare_writes_a_suite(tmp_path: Path) -> None:
    status, text = invoke("bench", "--only", "layer_norm", "--prepare", str(tmp_path / "suite"))
    assert status == 0, text
    assert (tmp_path / "suite" / "run.py").is_file()
    status, text = invoke("verify", str(tmp_path / "suite"))
    assert status == 0, text


def test_a_folder_that_is_no_suite_and_words_that_name_no_row(tmp_path: Path) -> None:
    status, text = invoke("bench", str(tmp_path / "absent"))
    assert status == 2
    assert "is no prepared suite" in text
    prepared(NORM).write(tmp_path / "suite")
    status, text = invoke("bench", str(tmp_path / "suite"), "--only", "gemm", "--rehearse")
    assert status == 2
    assert "words of names such as layer_norm small" in text


def test_cases_prepared_side_by_side_make_the_same_suite() -> None:
    two = (replace(SMALL, top=1), NORM)
    with ProcessPoolExecutor(2) as pool:
        made = make_suite("h200", QUICK, quiet, two, ("triton",), pool)
    alone = prepared(*two)
    assert (made.rows, made.kernels, made.files) == (alone.rows, alone.kernels, alone.files)
