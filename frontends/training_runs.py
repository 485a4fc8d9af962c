"""A CSV of measured training runs -> typed rows.

Columns: `model, layers, hidden, heads, ffn, vocab, seq, gpu, n_gpus, tp, pp, dp, global_batch` and `iter_time_s` or
`tflops_per_gpu`; optional `source, params, kv_heads, gpus_per_node, vpp, cp, ep, micro_batch, precision, recompute,
zero, notes`. Other columns are ignored, an empty cell is a value that was not published, and a decimal comma, a unit or
a word where a number is expected is an error with its line.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.plan import read_text

REQUIRED = (
    "model",
    "layers",
    "hidden",
    "heads",
    "ffn",
    "vocab",
    "seq",
    "gpu",
    "n_gpus",
    "tp",
    "pp",
    "dp",
    "global_batch",
)
TIMES = ("iter_time_s", "tflops_per_gpu")


class NotTrainingRuns(TreadleError):
    """A file that is no table of training runs."""

    code = "TRD610"
    template = "no table of training runs: {reason}"
    hint = "give a CSV whose first line names the columns {columns}"


class BadRunValue(TreadleError):
    """A cell that cannot be read."""

    code = "TRD611"
    template = "column `{column}` is `{found}`"
    hint = "leave a cell empty when its value was not published"


class NoUsableRun(TreadleError):
    """A table of which no row can be predicted."""

    code = "TRD612"
    template = "none of the {rows} runs can be predicted: {reasons}"
    hint = "constants are there for the GPUs {gpus}"


class NothingToFit(TreadleError):
    """A GPU type whose constants cannot be fitted on a table."""

    code = "TRD613"
    template = "`{file}` has no runs to fit constants of `{gpu}` on"
    hint = "a fifth of a type's runs is taken: give five or more"


class RunWithoutValue(TreadleError):
    """A run of which a number is not published that nothing else in the row tells."""

    code = "TRD652"
    template = "column `{column}` is empty"
    hint = "the run is left out: nothing else in the row tells this number"


class RunMisfit(TreadleError):
    """A run whose numbers do not go together."""

    code = "TRD653"
    template = "{what}"
    hint = "the run is left out; see the line's degrees, batch and layers"


class RunGpuUnknown(TreadleError):
    """A run on a GPU type without constants."""

    code = "TRD654"
    template = "GPU {gpu} has no constants"
    hint = "the run is left out"


class UnknownExperts(TreadleError):
    """A model with experts of which nobody says how many there are."""

    code = "TRD651"
    template = "the columns do not say how many experts `{model}` has"
    hint = "known by name: DeepSeek-V3, Kimi K2, GPT-OSS, Qwen3 and Mixtral"


@dataclass(frozen=True, slots=True)
class Run:
    """One row. Numbers that were not published are None; texts are empty."""

    texts: Mapping[str, str]
    place: Place
    key: str
    """Digest of the row's text."""

    def text(self, column: str) -> str:
        """Return a cell, stripped; empty where the column or value is missing."""
        return (self.texts.get(column) or "").strip()

    def number(self, column: str, least: float = 0.0) -> float | None:
        """Return a cell as a number above `least`, or None where it is empty; raises BadRunValue."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least < value < float("inf"):
            expected = f"a number above {least:g}"
            raise BadRunValue(column=column, found=text, place=self.place, expected=expected)
        return value

    def whole(self, column: str) -> int | None:
        """Return a cell as a whole number of at least 1, or None where it is empty; raises BadRunValue."""
        value = self.number(column)
        if value is not None and value != int(value):
            raise BadRunValue(column=column, found=self.text(column), place=self.place, expected="a whole number")
        return None if value is None else int(value)

    def count(self, column: str) -> int:
        """Return a degree: 1 where it was not published."""
        return self.whole(column) or 1


def read_runs(path: Path) -> tuple[Run, ...]:
    """Return the rows of a file; raises UnreadableFile, NotTrainingRuns."""
    return parse_runs(read_text(path), str(path))


def parse_runs(text: str, file: str = "runs.csv") -> tuple[Run, ...]:
    """Return the rows of a CSV text; raises NotTrainingRuns."""
    reader = csv.DictReader(StringIO(text.lstrip("\ufeff"), newline=""))
    try:
        _check_header([name.strip() for name in reader.fieldnames or ()], file)
        runs = tuple(_run(record, Place(file, reader.line_num)) for record in reader)
    except csv.Error as error:
        raise NotTrainingRuns(reason=str(error), columns=_columns(), place=Place(file, reader.line_num)) from None
    if not runs:
        raise NotTrainingRuns(reason="no line after the header", columns=_columns(), place=Place(file, 1))
    return runs


def _columns() -> str:
    return ", ".join((*REQUIRED, " or ".join(TIMES)))


def _check_header(names: Sequence[str], file: str) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if not missing and not set(TIMES) & set(names):
        missing = [TIMES[0]]
    if missing:
        near = [found for name in missing if (found := closest(name, list(names)))]
        reason = f"no column `{missing[0]}`" if names else "the file is empty"
        hint = f"name it `{missing[0]}`; {near[0]}" if near else ""
        raise NotTrainingRuns(reason=reason, columns=_columns(), place=Place(file, 1), hint=hint)


def _run(record: Mapping[str | None, object], place: Place) -> Run:
    texts = {name.strip(): value for name, value in record.items() if name and isinstance(value, str)}
    return Run(texts, place, hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest())
