"""What `treadle show` shows: the report page of a plan folder, a kernel of a plan, a plan in the text form."""

from __future__ import annotations

import tempfile
from pathlib import Path

from treadle.codegen.group_timeline import by_groups
from treadle.codegen.report import render
from treadle.codegen.text_timeline import Row, timeline_rows
from treadle.ir.diagnostics import closest
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.plan import Plan, read_text
from treadle.ir.text.documents import print_document
from treadle.ir.tile.kernel import KernelPlan


def report_page(path: Path, plan: Plan) -> Path:
    """Return the plan's report.html; a plan without one gets it in a temporary folder."""
    folder = path if path.is_dir() else path.parent
    page = folder / "report.html"
    if page.is_file():
        return page
    made = Path(tempfile.mkdtemp(prefix="treadle-report-")) / "report.html"
    made.write_text(render(plan, _sources(folder, plan)), encoding="utf-8")
    return made


def _sources(folder: Path, plan: Plan) -> dict[str, str]:
    kernels: tuple[KernelPlan, ...] = getattr(plan.body, "kernels", ())
    inside = {kernel.name: folder / kernel.source for kernel in kernels if kernel.source}
    return {
        name: read_text(file)
        for name, file in inside.items()
        if file.is_file() and file.resolve().is_relative_to(folder.resolve())
    }


def kernel_of(plan: Plan, name: str) -> KernelPlan:
    """Return a kernel of the plan by name.

    Raises:
        InvalidValue: the plan has no kernels. UnknownName: no such kernel.
    """
    kernels: tuple[KernelPlan, ...] = getattr(plan.body, "kernels", ())
    if not kernels:
        raise InvalidValue(message=f"a plan of kind `{plan.kind}` has no kernels to draw")
    for kernel in kernels:
        if kernel.name == name:
            return kernel
    names = [kernel.name for kernel in kernels]
    raise UnknownName(kind="kernel", name=name, expected=f"one of {', '.join(names)}", hint=closest(name, names))


def plan_text(plan: Plan) -> str:
    """Return the plan in the text form."""
    return print_document([plan])


def drawn_rows(kernel: KernelPlan, width: int) -> tuple[Row, ...]:
    """Return the kernel's timeline as rows of text: by warp group where it has groups, by unit otherwise."""
    return timeline_rows(drawn_kernel(kernel), width)


def drawn_kernel(kernel: KernelPlan) -> KernelPlan:
    """Return the kernel as it is drawn: over its warp groups where it has some."""
    return kernel if kernel.groups is None else by_groups(kernel)
