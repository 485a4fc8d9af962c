"""Where the volumes of a pod may be attached: node affinity and zone of bound volumes, topologies of storage classes.

Follows pkg/scheduler/framework/plugins/{volumebinding,volumezone}. A volume of one node at a time (ReadWriteOnce)
lets no replacement start before the old pod is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.documents import Data
from treadle.frontends.kubernetes.objects import Dump, Object
from treadle.ir.cluster.cluster import NodeTerm
from treadle.ir.cluster.labels import Operator, Requirement
from treadle.ir.errors import InvalidValue

_ZONES = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
_SELECTED = "volume.kubernetes.io/selected-node"
_HOSTNAME = "kubernetes.io/hostname"
_MOST_TERMS = 256

Terms = tuple[NodeTerm, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """What the volumes of a pod ask for. `terms`: one tuple of alternatives per volume, all of which must be met."""

    terms: tuple[Terms, ...] = ()
    single: bool = False
    """Some volume is attached to one node at a time."""
    local: bool = False
    """Some volume is of its node."""
    unseen: str = ""
    """A claim, or its volume, that the dump does not show."""


def volumes_of(dump: Dump, pod: Object) -> Attached:
    """Return what the claims of a pod ask for."""
    terms: list[Terms] = []
    single = local = False
    for volume in pod.items("spec", "volumes"):
        name = _claim_name(pod, volume)
        if not name:
            continue
        claim = dump.find("PersistentVolumeClaim", pod.namespace, name)
        bound = str(claim.get("spec", "volumeName") or "") if claim else ""
        shown = dump.find("PersistentVolume", "default", bound) if bound else None
        if claim is None or (bound and shown is None):
            return Attached(unseen=name)
        modes = claim.get("spec", "accessModes") or []
        single |= any(mode in ("ReadWriteOnce", "ReadWriteOncePod") for mode in modes)
        found = _terms_of_volume(shown) if shown else _terms_of_claim(dump, claim)
        local |= shown is not None and (shown.get("spec", "local") is not None or _names_nodes(found))
        terms += found
    return Attached(tuple(terms), single, local)


def attaches(pod: Object) -> bool:
    """Whether a pod has volumes that count toward the attach limits of its node."""
    return any(_claim_name(pod, one) or isinstance(one.get("csi"), dict) for one in pod.items("spec", "volumes"))


def limits_attached(dump: Dump) -> bool:
    """Whether nodes may limit what they attach: some CSINode says how many, or the dump shows none."""
    nodes = dump.of("CSINode")
    limits = (driver.get("allocatable") for item in nodes for driver in item.items("spec", "drivers"))
    return not nodes or any(isinstance(limit, dict) and limit.get("count") is not None for limit in limits)


def met_together(own: Terms, volumes: tuple[Terms, ...]) -> Terms:
    """Return the alternatives that meet one of the pod's own (none: no affinity) and one of every volume's."""
    choices = [alternatives for alternatives in (own, *dict.fromkeys(volumes)) if alternatives]
    if len(choices) <= 1:
        return choices[0] if choices else ()
    met = (
        NodeTerm(sum((term.labels for term in terms), ()), sum((term.fields for term in terms), ()))
        for terms in product(*choices)
        if all(term.labels or term.fields for term in terms)
    )
    found = tuple(dict.fromkeys(met))
    if len(found) > _MOST_TERMS:
        message = f"affinity and volumes of a pod have {len(found)} alternatives, more than {_MOST_TERMS}"
        raise InvalidValue(message=message)
    return found or (NodeTerm(),)


def _claim_name(pod: Object, volume: Data) -> str:
    claim = volume.get("persistentVolumeClaim")
    if isinstance(claim, dict):
        return str(claim.get("claimName"))
    return f"{pod.name}-{volume.get('name')}" if isinstance(volume.get("ephemeral"), dict) else ""


def _terms_of_volume(volume: Object) -> list[Terms]:
    affinity = volume.items("spec", "nodeAffinity", "required", "nodeSelectorTerms")
    labels = volume.strings("metadata", "labels")
    zones = tuple(Requirement(key, Operator.IN, tuple(labels[key].split("__"))) for key in _ZONES if key in labels)
    found = [rules.node_terms(volume, affinity)] if affinity else []
    return [*found, (NodeTerm(zones),)] if zones else found


def _terms_of_claim(dump: Dump, claim: Object) -> list[Terms]:
    """A claim without a volume: the node it was provisioned for, or the topologies of its class."""
    selected = claim.strings("metadata", "annotations").get(_SELECTED)
    if selected:
        return [(NodeTerm(fields=(Requirement("metadata.name", Operator.IN, (selected,)),)),)]
    described = dump.find("StorageClass", "default", str(claim.get("spec", "storageClassName") or ""))
    topologies = described.items("allowedTopologies") if described else []
    terms = [
        NodeTerm(
            tuple(
                Requirement(str(one.get("key")), Operator.IN, tuple(map(str, one.get("values") or [])))
                for one in topology.get("matchLabelExpressions") or []
            )
        )
        for topology in topologies
    ]
    return [tuple(terms)] if terms else []


def _names_nodes(found: list[Terms]) -> bool:
    return any(one.key == _HOSTNAME for terms in found for term in terms for one in term.labels)
