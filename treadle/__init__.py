"""treadle: compiles model + workload + machines into plans, and proves how good each plan is.

The public names below load on first use, so `import treadle` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from treadle.ir.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from treadle.costmodels.machines import load_machine
    from treadle.driver import programs
    from treadle.driver.api import Scheduled, schedule, search
    from treadle.driver.launch_binary import load_binary
    from treadle.driver.load_kernels import load_kernels
    from treadle.frontends.hf import load_model
    from treadle.frontends.kubernetes.cluster import load_cluster
    from treadle.ir.certificate import Certificate, ProofKind, Status
    from treadle.ir.diagnostics import Finding, TreadleError
    from treadle.ir.machine import Machine
    from treadle.ir.plan import Plan
    from treadle.ir.plan import load as load_plan
    from treadle.solvers.packing.starts import pack
    from treadle.solvers.projects.solve import schedule_project
    from treadle.solvers.reassignment.solve import reassign
    from treadle.solvers.task_graphs.solve import schedule_tasks
    from treadle.solvers.vector_packing.solve import pack_vectors
    from treadle.solvers.vm_rescheduling.solve import reschedule_vms
    from treadle.verification.core import verify

_PUBLIC: dict[str, str] = {
    "Certificate": "treadle.ir.certificate:Certificate",
    "Finding": "treadle.ir.diagnostics:Finding",
    "Machine": "treadle.ir.machine:Machine",
    "Plan": "treadle.ir.plan:Plan",
    "ProofKind": "treadle.ir.certificate:ProofKind",
    "Scheduled": "treadle.driver.api:Scheduled",
    "Status": "treadle.ir.certificate:Status",
    "TreadleError": "treadle.ir.diagnostics:TreadleError",
    "load_machine": "treadle.costmodels.machines:load_machine",
    "load_model": "treadle.frontends.hf:load_model",
    "load_cluster": "treadle.frontends.kubernetes.cluster:load_cluster",
    "load_binary": "treadle.driver.launch_binary:load_binary",
    "load_kernels": "treadle.driver.load_kernels:load_kernels",
    "load_plan": "treadle.ir.plan:load",
    "pack": "treadle.solvers.packing.starts:pack",
    "programs": "treadle.driver.programs:",
    "schedule": "treadle.driver.api:schedule",
    "search": "treadle.driver.api:search",
    "pack_vectors": "treadle.solvers.vector_packing.solve:pack_vectors",
    "reassign": "treadle.solvers.reassignment.solve:reassign",
    "reschedule_vms": "treadle.solvers.vm_rescheduling.solve:reschedule_vms",
    "schedule_project": "treadle.solvers.projects.solve:schedule_project",
    "schedule_tasks": "treadle.solvers.task_graphs.solve:schedule_tasks",
    "verify": "treadle.verification.core:verify",
}

__all__ = [
    "Certificate",
    "Finding",
    "Machine",
    "Plan",
    "ProofKind",
    "Scheduled",
    "Status",
    "TreadleError",
    "load_binary",
    "load_cluster",
    "load_kernels",
    "load_machine",
    "load_model",
    "load_plan",
    "pack",
    "pack_vectors",
    "programs",
    "reassign",
    "reschedule_vms",
    "schedule",
    "schedule_project",
    "schedule_tasks",
    "search",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'treadle' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
