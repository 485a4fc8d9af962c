"""The verbs of the command line: name, module, one help line. A module is imported only when its verb is used.

A verb's module defines `command` (a function typer understands) or `app` (a `typer.Typer` with sub-verbs).
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "compile": ("treadle.cli.compile", "Compile a deployment: kernels, engines, pods, manifests."),
    "kernel": ("treadle.cli.kernel", "Schedule a tile program or a loop, and emit its kernel."),
    "overlap": ("treadle.cli.overlap", "Overlap compute, memory and network within a layer."),
    "sections": ("treadle.cli.sections", "Cut a model into sections for a spatial machine."),
    "parallel": ("treadle.cli.parallel", "Cut a model over a training cluster."),
    "serve": ("treadle.cli.serve", "Lay out engine pools for a workload under its SLOs."),
    "layout": ("treadle.cli.layout", "Place experts, adapters, buffers, tiers, or a batch."),
    "pack": ("treadle.cli.pack", "Place pods, and order the steps to get there."),
    "bench": ("treadle.cli.bench", "Check and time kernels on a GPU."),
    "tune": ("treadle.cli.tune", "Time the best schedules of a program, keep the fastest."),
    "verify": ("treadle.cli.verify", "Re-derive every claim of a plan, without a solver."),
    "explain": ("treadle.cli.explain", "Say what binds, and what would lower it."),
    "show": ("treadle.cli.show", "Open a plan's report, draw a kernel, print the text."),
    "diff": ("treadle.cli.diff", "Say what changed between two plans, level by level."),
    "machines": ("treadle.cli.machines", "List the machines, or every figure of one."),
}
