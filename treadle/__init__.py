"""treadle: compiles model + workload + machines into plans, and proves how good each plan is.

The public names below load on first use, so `import treadle` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from treadle.ir.certificate import Certificate, ProofKind, Status
    from treadle.ir.diagnostics import Finding, TreadleError
    from treadle.ir.machine import Machine
    from treadle.ir.plan import Plan
    from treadle.ir.plan import load as load_plan

_PUBLIC: dict[str, str] = {
    "Certificate": "treadle.ir.certificate:Certificate",
    "Finding": "treadle.ir.diagnostics:Finding",
    "Machine": "treadle.ir.machine:Machine",
    "Plan": "treadle.ir.plan:Plan",
    "ProofKind": "treadle.ir.certificate:ProofKind",
    "Status": "treadle.ir.certificate:Status",
    "TreadleError": "treadle.ir.diagnostics:TreadleError",
    "load_plan": "treadle.ir.plan:load",
}

__all__ = [
    "Certificate",
    "Finding",
    "Machine",
    "Plan",
    "ProofKind",
    "Status",
    "TreadleError",
    "load_plan",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'treadle' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
