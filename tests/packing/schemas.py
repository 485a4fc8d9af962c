"""Small schemas of the emitted fields of CRDs, written from their openAPIV3Schema.

Sources: kubernetes-sigs/kueue config/components/crd/bases (storage version v1beta2, controller-gen v0.20.1) and
kubernetes-sigs/lws config/crd/bases (v1, controller-gen v0.17.2), both Apache-2.0.
"""

from __future__ import annotations

from typing import Any

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
LABEL = {"type": "string", "pattern": r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9][-A-Za-z0-9_.]*$", "maxLength": 316}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(m|[kMGTPE]|[KMGTPE]i)?$"}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an object schema without other properties."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def kind(api: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one kind."""
    metadata = closed({"name": NAME}, {"namespace": NAME})
    return closed({"apiVersion": {"const": api}, "kind": {"const": name}, "metadata": metadata, "spec": spec})


def listed(items: dict[str, Any], most: int) -> dict[str, Any]:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


KUEUE = "kueue.x-k8s.io/v1beta2"
QUOTA = closed({"name": {"type": "string"}, "nominalQuota": QUANTITY})
FLAVOR = closed({"name": NAME, "resources": listed(QUOTA, 64)})
GROUP = closed({"coveredResources": listed({"type": "string"}, 64), "flavors": listed(FLAVOR, 64)})
LABELS = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 8, "minProperties": 1}
POD = closed({"spec": closed({"affinity": {"type": "object"}})})
TEXT = {"type": "string", "minLength": 1}
WEIGHED = closed({"name": TEXT, "weight": {"type": "integer", "minimum": 1, "maximum": 100}})
STRATEGIES = {"enum": ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]}
SCHEDULER = "kubescheduler.config.k8s.io/v1"
FIT = closed(
    {
        "apiVersion": {"const": SCHEDULER},
        "kind": {"const": "NodeResourcesFitArgs"},
        "scoringStrategy": closed({"type": STRATEGIES, "resources": listed(WEIGHED, 64)}),
    }
)
PLUGIN = closed({"name": {"const": "NodeResourcesFit"}, "args": FIT})
FILES: dict[str, dict[str, Any]] = {
    "Component": closed(
        {
            "apiVersion": {"const": "kustomize.config.k8s.io/v1alpha1"},
            "kind": {"const": "Component"},
            "patches": listed(closed({"path": TEXT}), 100_000),
        }
    ),
    "KubeSchedulerConfiguration": closed(
        {
            "apiVersion": {"const": SCHEDULER},
            "kind": {"const": "KubeSchedulerConfiguration"},
            "profiles": listed(closed({"schedulerName": TEXT, "pluginConfig": listed(PLUGIN, 64)}), 64),
        }
    ),
}
"""Files that are no objects of a cluster: api/types/kustomization.go of kustomize, staging/src/k8s.io/kube-scheduler/
config/v1/types*.go of Kubernetes."""
CRDS: dict[str, dict[str, Any]] = {
    "Topology": kind(KUEUE, "Topology", closed({"levels": listed(closed({"nodeLabel": LABEL}), 16)})),
    "ResourceFlavor": kind(KUEUE, "ResourceFlavor", closed({"nodeLabels": LABELS}, {"topologyName": NAME})),
    "ClusterQueue": kind(
        KUEUE, "ClusterQueue", closed({"namespaceSelector": {"type": "object"}, "resourceGroups": listed(GROUP, 16)})
    ),
    "LocalQueue": kind(KUEUE, "LocalQueue", closed({"clusterQueue": NAME})),
    "LeaderWorkerSet": kind(
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        closed({"leaderWorkerTemplate": closed({"workerTemplate": POD})}),
    ),
}
