"""What a pod asks of its node: effective requests, as the scheduler counts them.

Follows k8s.io/component-helpers/resource/helpers.go (`PodRequests`): containers and restartable init containers
together, or the largest other init container beside its sidecars; resources of the pod itself instead of those of its
containers; overhead; and what containers were resized to, or are about to be.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from treadle.frontends.kubernetes.documents import Data
from treadle.frontends.kubernetes.objects import Object
from treadle.frontends.kubernetes.quantity import amount, counted
from treadle.ir.cluster.cluster import Amounts
from treadle.ir.cluster.errors import BadQuantity, NegativeAmount

Quantities = dict[str, Fraction]


def requests_of(pod: Object) -> Amounts:
    """Return the effective requests of a pod, its place among the node's pods included."""
    sizes = _resized(pod)
    main: Quantities = {}
    for container in pod.items("spec", "containers"):
        _add(main, _asked(pod, container, sizes))
    sidecars: Quantities = {}
    peak: Quantities = {}
    for container in pod.items("spec", "initContainers"):
        together = dict(sidecars)
        _add(together, asked := _asked(pod, container, sizes))
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
        peak = _larger(peak, together)
    _add(main, sidecars)
    total = _larger(main, peak)
    total |= quantities(pod, pod.table("spec", "resources", "requests"))
    _add(total, quantities(pod, pod.table("spec", "overhead")))
    return {**{name: amount(name, value, up=True) for name, value in sorted(total.items()) if value}, "pods": 1}


def quantities(item: Object, amounts: dict[str, Any], container: str = "") -> Quantities:
    """Return quantities by resource; raises BadQuantity, NegativeAmount with container, resource and line."""
    found: Quantities = {}
    for name, text in amounts.items():
        try:
            found[name] = counted(name, text)
        except (BadQuantity, NegativeAmount) as error:
            inside = f"container `{container}`, " if container else ""
            place = item.near(str(text), str(name))
            error.place = replace(place, path=f"{place.path}: {inside}{name}")
            raise
    return found


def _asked(pod: Object, container: Data, sizes: dict[str, tuple[Quantities, bool]]) -> Quantities:
    """A container's requests; a limit without a request is also the request, as the API server fills it in."""
    resources = container.get("resources") or {}
    if not isinstance(resources, dict):
        raise pod.wrong("resources", resources, "a table of fields")
    name = str(container.get("name", ""))
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, table in (("limits", limits), ("requests", requests)):
        if not isinstance(table, dict):
            raise pod.wrong(f"resources.{field}", table, "a table of fields")
    asked = quantities(pod, {**limits, **requests}, name)
    if name in sizes:
        held, only = sizes[name]
        return _larger(held, {} if only else asked)
    return asked


def _resized(pod: Object) -> dict[str, tuple[Quantities, bool]]:
    """Return by container what it holds on its node, and whether that alone counts (a resize that cannot be met)."""
    if not pod.get("spec", "nodeName"):
        return {}
    pending = [c for c in pod.items("status", "conditions") if c.get("type") == "PodResizePending"]
    only = any(condition.get("reason") == "Infeasible" for condition in pending)
    found: dict[str, tuple[Quantities, bool]] = {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for status in pod.items("status", field):
            actual = (status.get("resources") or {}).get("requests") or {}
            allocated = status.get("allocatedResources") or {}
            if actual or allocated:
                name = str(status.get("name", ""))
                held = _larger(quantities(pod, actual, name), quantities(pod, allocated, name))
                found[name] = held, only and bool(held)
    return found


def _larger(one: Quantities, other: Quantities) -> Quantities:
    none = Fraction(0)
    return {name: max(one.get(name, none), other.get(name, none)) for name in {**one, **other}}


def _add(total: Quantities, more: Quantities) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Fraction(0)) + value
