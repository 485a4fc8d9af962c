"""Published training runs as problems of the training cost model, and which of them constants are fitted on.

How the columns are read, and what a source leaves open, is `training_readings`. A row that cannot be predicted is left
out with the coded reason, its line and model (`LeftOut`); no row stops the others.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.training_readings import (
    EXPERTS,
    GPUS,
    UNSTATED_MICRO_BATCHES,
    UNSTATED_RECOMPUTE,
    attention_share,
    check_values,
    cluster_of,
    degrees_of,
    gpu_of,
    measured_s,
    model_of,
    peak_gib,
    recompute_of,
    schedule_of,
    source_name,
    spec_of,
    unstated_chunks,
)
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.frontends.training_runs import NoUsableRun, Run, RunMisfit, read_runs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import TrainingSpec

_PREDICTOR_LAYERS = 2
_MOST_EVENTS = 10**6
"""Forwards of microbatches through virtual stages that a replay is asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run: the problem, what was run, and what was measured."""

    source: str
    group: tuple[str, ...]
    gpu: str
    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    degrees: Degrees
    measured_s: float
    measured_peak_gib: float | None
    key: str
    """Digest of the row's text, for choosing fit rows."""
    tuned: tuple[Degrees, ...] = ()
    """What may have been run where the source left it open; the fastest that fits is taken."""
    attention_share: float = 0.0
    """Of the peak, where it is the source's own and not the GPU type's."""

    def setting(self) -> Setting:
        """Return the row's problem resolved."""
        setting = setting_of(self.model, self.cluster, self.spec)
        if self.attention_share:
            return replace(setting, gpu=replace(setting.gpu, attention_share=self.attention_share))
        return setting

    def predict(self, setting: Setting | None = None) -> Replay:
        """Replay the row, in its setting or one with other constants."""
        setting = setting or self.setting()
        found = [self._replay(setting, degrees) for degrees in self.tuned or (self.degrees,)]
        fitting = [item for item in found if item.peak_bytes <= setting.gpu.memory_bytes]
        return min(fitting or found, key=lambda item: item.step_us)

    def narrowed(self) -> Row:
        """Return the row with what may be the answer for any constants: what fits, with the least run again.

        What is held does not hang on the constants, and running more again is never faster.
        """
        setting, kept = self.setting(), dict[tuple[int, int], Degrees]()
        for degrees in self.tuned:
            key = degrees.micro_batch, degrees.virtual
            if key not in kept and self._replay(setting, degrees).peak_bytes <= setting.gpu.memory_bytes:
                kept[key] = degrees
        return replace(self, tuned=tuple(kept.values()) or self.tuned)

    def _replay(self, setting: Setting, degrees: Degrees) -> Replay:
        return replay(setting, degrees, even_layout(self.model.layers, degrees.slots, self.model.predictors))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One run that cannot be predicted, and why."""

    line: int
    model: str
    gpu: str
    code: str
    reason: str


def read(path: Path) -> tuple[list[Row], list[LeftOut]]:
    """Return the usable rows, and those left out with the reason.

    Raises:
        UnreadableFile, NotTrainingRuns: the file is no such table. NoUsableRun: no row is left.
    """
    rows: list[Row] = []
    left: list[LeftOut] = []
    runs = read_runs(path)
    for run in runs:
        try:
            rows.append(_row(run))
        except TreadleError as error:
            line = run.place.line or 0
            left.append(LeftOut(line, run.text("model"), run.text("gpu"), error.code, str(error)))
    if not rows:
        reasons = ", ".join(f"{why} ({count})" for why, count in reasons_of(left).items())
        raise NoUsableRun(rows=len(runs), reasons=reasons, gpus=", ".join(GPUS), place=runs[0].place)
    return rows, left


def reasons_of(left: Iterable[LeftOut]) -> Mapping[str, int]:
    """Return why runs are left out, and how many for each reason."""
    return dict(Counter(f"{item.code} {item.reason}" for item in left))


def fit_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows constants may be fitted on: the fifth of each source with the smallest digests.

    A GPU type whose sources are all below five rows gives the fifth of its rows together. Runs of models with experts
    are never fitted on.
    """
    by_source: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.source.endswith(EXPERTS):
            by_source[row.gpu, row.source].append(row)
    chosen: list[Row] = []
    for gpu in dict.fromkeys(gpu for gpu, _ in by_source):
        parts: Sequence[list[Row]] = [members for (kind, _), members in by_source.items() if kind == gpu]
        if all(len(members) < 5 for members in parts):
            parts = [[row for members in parts for row in members]]
        for members in parts:
            chosen.extend(sorted(members, key=lambda row: row.key)[: len(members) // 5])
    return chosen


def even_layout(layers: int, slots: int, predictors: int = 0) -> StageLayout:
    """Return the even split; what is left over goes to the stages in the middle, away from embedding and loss.

    A module of multi-token prediction, a layer and a loss on the last stage, counts as two layers there.
    """
    ends = max(n for n in range(_PREDICTOR_LAYERS * predictors + 1) if n <= (layers + n) // slots)
    base, rest = divmod(layers + ends, slots)
    first = (slots - rest + 1) // 2
    counts = [base + (first <= slot < first + rest) for slot in range(slots)]
    return StageLayout((*counts[:-1], counts[-1] - ends))


def _row(run: Run) -> Row:
    """Return a run as a problem; raises a TreadleError that says why it cannot be predicted."""
    gpu = gpu_of(run)
    check_values(run)
    source = source_name(run.text("source"))
    model, degrees, spec = model_of(run, source), degrees_of(run, source), spec_of(run, source)
    names = ("model", "n_gpus", "global_batch", "seq", "gpu", "precision")
    if any(kind.experts for kind in model.kinds):
        source += EXPERTS
    row = Row(
        source,
        (source, *(run.text(name) for name in names)),
        gpu,
        model,
        cluster_of(run),
        spec,
        degrees,
        measured_s(run),
        peak_gib(run),
        run.key,
        _tuned(run, source, degrees),
        attention_share(run, source),
    )
    _check_fit(run, row)
    row.setting().peak()
    return row


def _check_fit(run: Run, row: Row) -> None:
    """Raise RunMisfit where a run's numbers do not go together."""
    degrees, batch, experts = row.degrees, row.spec.global_batch, [kind.experts for kind in row.model.kinds]
    ranks = degrees.data * degrees.context * degrees.tensor
    wrong = {
        "degrees do not multiply to the GPUs": degrees.gpus != run.whole("n_gpus"),
        "heads do not divide the hidden size": not any(experts) and run.count("hidden") % run.count("heads") > 0,
        "batch does not split": batch % (degrees.data * degrees.micro_batch) > 0,
        "more stages than layers": run.count("layers") < degrees.slots - 2,
        f"more than {_MOST_EVENTS} forwards": degrees.slots * max(1, degrees.microbatches(batch)) > _MOST_EVENTS,
        "interleaving does not split": not _interleaves(degrees, batch),
        "experts do not split": ranks % degrees.expert > 0
        or any(one is not None and one.count % degrees.expert for one in experts),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise RunMisfit(what=what, place=run.place)


def _tuned(run: Run, source: str, degrees: Degrees) -> tuple[Degrees, ...]:
    """Return what may have been run where the source names no microbatch, recomputation or chunks; else nothing."""
    notes, batch = run.text("notes"), run.count("global_batch")
    named = run.text("micro_batch") and not re.search(r"micro-batch size[^;]* not in the table", notes)
    sizes = (degrees.micro_batch,) if named else UNSTATED_MICRO_BATCHES
    modes = (degrees.recompute,) if recompute_of(run, source) else UNSTATED_RECOMPUTE
    choices = [
        replace(degrees, micro_batch=size, recompute=mode, virtual=chunks, schedule=schedule_of(chunks))
        for size in sizes
        for chunks in unstated_chunks(run, source) or (degrees.virtual,)
        for mode in modes
        if batch % (size * degrees.data) == 0
    ]
    return tuple(choice for choice in choices if _interleaves(choice, batch)) if len(choices) > 1 else ()


def _interleaves(degrees: Degrees, batch: int) -> bool:
    """Whether a run's microbatches go round its virtual stages (all of them do with one per rank)."""
    return degrees.virtual == 1 or (degrees.pipeline > 1 and degrees.microbatches(batch) % degrees.pipeline == 0)
