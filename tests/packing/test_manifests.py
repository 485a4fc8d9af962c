"""Manifests of a packing against the schemas of Kubernetes (`kubernetes-validate`) and of Kueue's and LWS's CRDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.packing.builders import HOST, node, shape
from tests.packing.schemas import CRDS, FILES
from treadle.codegen.kubernetes.manifests import manifests
from treadle.ir.cluster.cluster import PENDING, Cluster, Gang, Pod
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.cluster.placement import Placement
from treadle.solvers.packing.migrate import order

KUBERNETES = "1.35"
FULL: dict[str, Any] = {"containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10"}]}
BIG = Path(__file__).parents[3] / "shared" / "data" / "schemas"


def plan() -> PackingBody:
    """A move, an eviction, an outage, and a gated gang of a LeaderWorkerSet."""
    labels = {"node.kubernetes.io/instance-type": "p5.48xlarge", "rack": "r1"}
    nodes = tuple(node(f"n{i}", labels={HOST: f"n{i}", **labels}) for i in range(3))
    shapes = (
        shape("web", 800, workload="Deployment/web"),
        shape("batch", 700, workload="Job/batch"),
        shape("lws", 300, workload="LeaderWorkerSet/lws"),
    )
    gang = tuple(Pod(f"l{i}", 2, PENDING, gang="g", gated=i == 0) for i in range(2))
    pods = (Pod("w", 0, 0), Pod("b", 1, 1), *gang)
    cluster = Cluster(nodes, shapes, pods, (), (Gang("g", 2, "rack"),))
    placement = Placement((2, PENDING, 0, 1))
    return PackingBody(cluster, Objective(), placement, order(cluster, placement))


def documents(path: str = "") -> list[tuple[str, dict[str, Any]]]:
    files = manifests(plan())
    return [
        (name, document)
        for name, content in files.items()
        if name.endswith(".yaml") and name.startswith(path)
        for document in yaml.safe_load_all(content)
    ]


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a patch with what its target has anyway."""
    if document["kind"] == "Pod":
        return {**document, "spec": {**FULL, **document["spec"]}}
    template = document["spec"]["template"]
    inside: dict[str, Any] = {**template, "metadata": {"labels": {"app": "x"}}, "spec": {**FULL, **template["spec"]}}
    selector = {} if document["kind"] == "Job" else {"selector": {"matchLabels": {"app": "x"}}}
    if document["kind"] == "Job":
        inside["spec"]["restartPolicy"] = "Never"
    return {**document, "spec": {**selector, "template": inside}}


@pytest.mark.filterwarnings("ignore")
def test_objects_of_kubernetes_are_valid() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    seen: set[str] = set()
    for _, document in documents():
        kind = document["kind"]
        if kind in ("Pod", "Deployment", "Job"):
            document = completed(document)
        elif kind not in ("Node", "Binding", "Eviction"):
            continue
        seen.add(kind)
        validate.validate(document, KUBERNETES, strict=True)
        broken = {**document, "metadata": {**document["metadata"], "nam": "x"}}
        with pytest.raises(Exception, match=r"nam|additional|Additional"):
            validate.validate(broken, KUBERNETES, strict=True)
    assert seen == {"Pod", "Deployment", "Node", "Binding", "Eviction"}


def test_objects_of_crds_and_files_are_valid() -> None:
    schemas = {**CRDS, **FILES}
    found = [document for _, document in documents() if document["kind"] in schemas]
    for document in found:
        jsonschema.validate(document, schemas[document["kind"]])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, "more": 1}, schemas[document["kind"]])
    assert {document["kind"] for document in found} == set(schemas)


def test_every_emitted_kind_has_a_schema() -> None:
    validated = {"Pod", "Deployment", "Job", "Node", "Binding", "Eviction"}
    assert {document["kind"] for _, document in documents()} <= validated | {*CRDS, *FILES}


def test_patches_of_the_component_are_there() -> None:
    files = manifests(plan())
    (component,) = [document for _, document in documents("deploy/component/kustomization")]
    assert component["patches"]
    assert all(f"deploy/component/{patch['path']}" in files for patch in component["patches"])


@pytest.mark.skipif(not BIG.is_dir(), reason="the published schemas are not there; the small ones were used")
@pytest.mark.parametrize("kind", ["Topology", "ResourceFlavor", "ClusterQueue", "LocalQueue"])
def test_objects_pass_the_published_crds(kind: str) -> None:
    files = {"Topology": "topologies", "ResourceFlavor": "resourceflavors", "ClusterQueue": "clusterqueues"}
    crd = yaml.load(
        (BIG / f"kueue_{files.get(kind, 'localqueues')}.yaml").read_text(),
        Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
    )
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1beta2"]
    found = [document for _, document in documents("deploy/kueue") if document["kind"] == kind]
    assert found
    for document in found:
        jsonschema.validate(document, _plain(schema))


def _plain(schema: Any) -> Any:
    """Drop Kubernetes extensions that JSON Schema does not know."""
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            return {"type": ["integer", "string"]}
        return {key: _plain(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    return [_plain(value) for value in schema] if isinstance(schema, list) else schema


def test_pods_behind_gates_are_directed_and_never_bound() -> None:
    (gated,) = [document for _, document in documents("deploy/gates")]
    assert (gated["metadata"]["name"], gated["spec"]["nodeSelector"]) == ("l0", {HOST: "n0"})
    bound = [d["metadata"]["name"] for _, d in documents("deploy/waves") if d["kind"] == "Binding"]
    assert sorted(bound) == ["l1", "w"]


def test_quotas_are_what_other_pods_leave() -> None:
    (queue,) = [d for _, d in documents("deploy/kueue") if d["kind"] == "ClusterQueue"]
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    assert flavor["resources"] == [{"name": "cpu", "nominalQuota": "2200m"}]  # 3,000m less the Deployment's 800m


def test_evictions_are_listed_in_order() -> None:
    lines = manifests(plan())["deploy/evictions.csv"].decode().splitlines()
    assert lines[0] == "wave,namespace,pod,priority,node,reason,target"
    assert "1,default,w,0,n0,move,n2" in lines
    assert "1,default,b,0,n1,evict," in lines


def test_without_jobs_there_are_no_queues() -> None:
    cluster = Cluster((node("n0"),), (shape("web", workload="Deployment/web"),), (Pod("w", 0, PENDING),))
    placement = Placement((0,))
    files = manifests(PackingBody(cluster, Objective(), placement, order(cluster, placement)))
    assert "deploy/kueue.yaml" not in files
