"""The Python face as a user types it; checked by mypy and pyright, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import treadle as td
from treadle.driver.api import KernelSource
from treadle.driver.programs import ProgramRequest
from treadle.ir.certificate import Level
from treadle.ir.model import ModelGraph
from treadle.verification.core import Review


def from_configuration_to_kernel() -> None:
    """Five lines from config to plan."""
    model = td.load_model("config.json")
    loop = td.programs.attention_fwd(model, seq=16384)
    plan = td.schedule(loop, machine="h200")
    assert_type(model, ModelGraph)
    assert_type(loop, ProgramRequest)
    assert_type(plan, td.Scheduled)
    assert_type(plan.certificate["ii"], Level)
    assert_type(plan.certificate["ii"].status, td.Status)
    assert_type(plan.emit("triton"), KernelSource)
    assert_type(plan.verify(), Review)


def search_and_save() -> None:
    """Candidates, plans on disk, machines."""
    best = td.search(td.programs.gemm(8192, 8192, 8192), machine=td.load_machine("b200"), top=3)
    assert_type(best, list[td.Scheduled])
    assert_type(best[0].save(Path("plan")), td.Plan)
    assert_type(td.load_plan(Path("plan")), td.Plan)
    assert_type(td.verify(Path("plan")), Review)
