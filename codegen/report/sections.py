"""Sections of a report: what one is given, what it returns, and which kind of plan has which.

A level adds its sections by one module with `section(context) -> Section | None` and a line in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelPlan

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parents[1] / "templates" / "report"

_ROOM = "treadle.codegen.report"
DEFAULT = (f"{_ROOM}.checks:section", f"{_ROOM}.certificates:section", f"{_ROOM}.origin:section")
SECTIONS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("deployment", "kernel"),
    (
        f"{_ROOM}.checks:section",
        f"{_ROOM}.parts:section",
        f"{_ROOM}.kernel_table:section",
        f"{_ROOM}.roofline:section",
        f"{_ROOM}.kernels:section",
        f"{_ROOM}.model:section",
        f"{_ROOM}.workload:section",
        f"{_ROOM}.certificates:section",
        f"{_ROOM}.origin:section",
    ),
)
SECTIONS["serving"] = (
    f"{_ROOM}.serving:pools",
    f"{_ROOM}.serving:binds",
    f"{_ROOM}.serving:goodput",
    f"{_ROOM}.serving:latencies",
    f"{_ROOM}.serving:front",
    *DEFAULT,
)
SECTIONS["overlap"] = (f"{_ROOM}.operators:period", *DEFAULT)
SECTIONS["sections"] = (f"{_ROOM}.operators:cuts", *DEFAULT)
"""Kind of plan -> its sections in order, as `module:function`; other kinds have `DEFAULT`."""


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """What verification said: claims recomputed, claims on a solver's word, findings."""

    rederived: int
    on_solver_word: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What sections are made from: the plan, sources by kernel name, and the review where there is one."""

    plan: Plan
    sources: Mapping[str, str]
    review: ReviewFigures | None

    @property
    def kernels(self) -> tuple[KernelPlan, ...]:
        """The kernels of the plan; empty for kinds without kernels."""
        found: tuple[KernelPlan, ...] = getattr(self.plan.body, "kernels", ())
        return found

    @property
    def machine(self) -> Machine | None:
        """The machine of the plan, where it has one."""
        found: Machine | None = getattr(self.plan.body, "machine", None)
        return found


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: anchor, heading and HTML."""

    anchor: str
    title: str
    html: str


Renderer = Callable[[Context], Section | None]


def sections(context: Context) -> list[Section]:
    """Return the sections of a plan, those that have something to say."""
    found: list[Section] = []
    for name in SECTIONS.get(context.plan.kind, DEFAULT):
        module, _, function = name.partition(":")
        renderer: Renderer = getattr(import_module(module), function)
        made = renderer(context)
        if made is not None:
            found.append(made)
    return found


@cache
def environment() -> Environment:
    """Return the template environment of the report: everything escaped, nothing undefined."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from treadle.codegen.report.words import bytes_text, figure

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["figure"] = figure
    made.filters["bytes"] = bytes_text
    return made


def filled(template: str, **values: object) -> str:
    """Return a template with its values."""
    return environment().get_template(template).render(**values)
