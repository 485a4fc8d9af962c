"""The line of a re-plan: a parallel plan and what happened to its nodes -> the plan that goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from treadle.codegen.folder import write_plan
from treadle.codegen.training.replan_files import replan_files
from treadle.codegen.training.replan_report import replan_report
from treadle.costmodels.training_elastic import replan_predictions
from treadle.driver.versions import versions
from treadle.ir.codec import encode
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import Plan, input_from, load
from treadle.ir.training.elastic import Event, NotElastic, SlowNode, Terms
from treadle.ir.training.plan import ParallelBody
from treadle.ir.units import parse_quantity
from treadle.solvers.replanning.solve import replan

_MOST_NODES = 1_000_000


@dataclass(frozen=True, slots=True)
class Happened:
    """What people say on the command line."""

    lost: str = ""
    slow: str = ""
    most_migrated: str = ""
    mirrored: bool = False
    even: bool = False
    storage: str = ""
    node_mtbf: str = ""
    restart: str = ""

    @property
    def asked(self) -> bool:
        """Whether anything of it was given."""
        return self != Happened()


def event_of(happened: Happened) -> Event:
    """Return lost and slow nodes; raises InvalidValue with the form that is expected."""
    slow: list[SlowNode] = []
    for item in filter(None, happened.slow.split(",")):
        match = re.fullmatch(r"\s*(\d+)\s*[=x:]\s*(\d+(?:\.\d+)?)\s*", item)
        if match is None:
            raise InvalidValue(message=f"`{item}` is no slow node", expected="NODE=FACTOR, such as 5=1.5")
        slow.append(SlowNode(int(match[1]), float(match[2])))
    return Event(_numbers(happened.lost), tuple(slow))


def _numbers(text: str) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for item in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", item)
        if match is None or int(match[2] or match[1]) - int(match[1]) not in range(_MOST_NODES):
            raise InvalidValue(message=f"`{item}` is no list of nodes", expected="numbers and ranges, such as 3,17-19")
        found |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)


def terms_of(happened: Happened) -> Terms:
    """Return the terms; what was not given keeps its default. Raises WrongUnit, InvalidValue."""
    fields: dict[str, object] = {"mirrored": happened.mirrored, "even": happened.even}
    if happened.most_migrated:
        fields["most_migrated_bytes"] = round(parse_quantity(happened.most_migrated, "memory"))
    if happened.storage:
        fields["storage_bytes_per_us"] = float(parse_quantity(happened.storage, "bandwidth")) / 1e6
    if happened.node_mtbf:
        fields["node_mtbf_h"] = float(parse_quantity(happened.node_mtbf, "time")) / 3600
    if happened.restart:
        fields["restart_us"] = float(parse_quantity(happened.restart, "time")) * 1e6
    return Terms(**fields)  # type: ignore[arg-type]  # a field's type is that of its line above


def replan_from(path: Path, happened: Happened) -> Plan:
    """Return the re-plan of a parallel plan, not sealed yet; raises NotElastic, NothingLeft, InvalidValue."""
    plan = load(path)
    if plan.kind != "parallel":
        raise NotElastic(reason=f"`{path}` holds a plan of kind `{plan.kind}`", expected="a plan of kind `parallel`")
    before: ParallelBody = plan.body
    found = replan(before, event_of(happened), terms_of(happened))
    document = path / "plan.json" if path.is_dir() else path
    inputs = (input_from("plan", document),)
    certificates = (found.certificate,)
    return Plan(
        "replan", inputs, encode(happened), versions(), found.body, certificates, replan_predictions(found.body)
    )


def write_replan(folder: Path, plan: Plan) -> Plan:
    """Write the plan folder: plan, transfer list, ranks, trainer files where data ranks are even, report."""
    return write_plan(folder, plan, {**replan_files(plan.body), "report.html": replan_report(plan)})
