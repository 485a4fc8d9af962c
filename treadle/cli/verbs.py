"""The verbs of the command line: name, module, one help line. A module is imported only when its verb is used.

A verb's module defines `command` (a function typer understands) or `app` (a `typer.Typer` with sub-verbs).
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "serve": ("treadle.cli.serve", "Lay out engine pools for a workload under its latency levels."),
    "layout": ("treadle.cli.layout", "Place experts, adapters, buffers, memory tiers, or a batch, with bounds."),
    "pack": ("treadle.cli.pack", "Place pods, prove how well, and order the steps to get there."),
    "compile": ("treadle.cli.compile", "Compile a deployment: model, workload and machine into proven kernels."),
    "kernel": ("treadle.cli.kernel", "Schedule one tile program or loop file, and emit its kernel."),
    "bench": ("treadle.cli.bench", "Check and time kernels on a GPU, or prepare a suite that does."),
    "tune": ("treadle.cli.tune", "Time the best candidates of a program, and keep the fastest."),
    "parallel": ("treadle.cli.parallel", "Cut a model over a training cluster, and prove the cut."),
    "overlap": ("treadle.cli.overlap", "Overlap compute, memory and network within a layer."),
    "sections": ("treadle.cli.sections", "Cut a model into sections for a spatial machine, and prove the cut."),
    "show": ("treadle.cli.show", "Open the report, draw a kernel, or print the plan as text."),
    "verify": ("treadle.cli.verify", "Re-derive every claim of a plan, without a solver."),
    "explain": ("treadle.cli.explain", "Say what binds each loop, and what would lower its interval."),
    "machines": ("treadle.cli.machines", "List the machines, or show every figure of one with its source."),
    "diff": ("treadle.cli.diff", "Say what changed between two plans, and which is better."),
}
