"""What dumps of real clusters hold beside pods and nodes: files, groups, volumes, budgets, gangs, and what is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packing.test_frontends import NODE, OTHERS, POD, WRONG, changed, dump, paths
from treadle.frontends.kubernetes.cluster import cluster_from, load_cluster
from treadle.ir.cluster.cluster import PENDING, Cluster, Pod, Shape, may_arrive
from treadle.ir.cluster.errors import BadQuantity, DuplicateName, NotACluster, OverfullNode, UnknownNode
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, MalformedText, MissingField, UnreadableFile, WrongType
from treadle.solvers.packing.solve import Options, pack


def waiting(pod: dict[str, Any] = POD, name: str = "p2") -> dict[str, Any]:
    made = changed(changed(pod, "metadata", "name", value=name), "spec", "nodeName", value=None)
    return changed(made, "spec", "containers", value=[{"name": "app", "resources": {"requests": {"cpu": "100m"}}}])


def read(*items: dict[str, Any]) -> Cluster:
    return cluster_from(dump(NODE, *items, *OTHERS), "f.json")


def shape_of(cluster: Cluster, name: str) -> tuple[Pod, Shape]:
    (pod,) = [pod for pod in cluster.pods if pod.name == name]
    return pod, cluster.shapes[pod.shape]


# files


def test_forms_of_files(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    whole = dump(NODE, POD, *OTHERS)
    bare = [{k: v for k, v in item.items() if k != "kind"} for item in (NODE, POD)]
    typed = [{"items": [item], "kind": f"{kind}List"} for kind, item in zip(("Node", "Pod"), bare, strict=True)]
    expected = load_after(path, json.dumps(whole))
    assert load_after(path, json.dumps(whole), "utf-16") == expected
    assert load_after(path, json.dumps(whole, indent=4), "utf-8-sig") == expected
    assert load_after(path, json.dumps(dump(*typed, *OTHERS))) == expected
    assert load_after(path, "\n".join(json.dumps(one) for one in (*typed, *OTHERS))) == expected
    (tmp_path / "rest.json").write_text(json.dumps({"kind": "List", "items": OTHERS}))
    path.write_text(json.dumps(dump(NODE, POD)))
    assert load_cluster(path, tmp_path / "rest.json") == expected


def load_after(path: Path, text: str, encoding: str = "utf-8") -> Cluster:
    path.write_text(text, encoding=encoding)
    return load_cluster(path)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", NotACluster, ["empty"]),
        ("[1]", NotACluster, ["List"]),
        ("{}", NotACluster, ["items"]),
        ('{"kind": "PodList"}', NotACluster, ["items"]),
        ('{"items": [3]}', NotACluster, ["items[0]"]),
        ('{"items": [{"kind": 3}]}', NotACluster, ["items[0]"]),
        ('{"items": [], }', MalformedText, ["c.json:1"]),
        ('{"items": []', MalformedText, ["ends early", "complete JSON"]),
        ('{"items": [NaN]}', MalformedText, ["NaN"]),
        ('{"items": [1e999]}', MalformedText, ["1e999"]),
        ("apiVersion: v1\nkind: List\n", MalformedText, ["kubectl -o json"]),
        ('{"items": ' + "[" * 100_000, MalformedText, ["not JSON"]),
    ],
)
def test_files_that_are_no_dump(tmp_path: Path, text: str, error: type[TreadleError], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        load_after(tmp_path / "c.json", text)
    assert all(word in caught.value.render() for word in words), caught.value.render()


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b"\x1f\x8b\x08\x00\xff")
    with pytest.raises(UnreadableFile, match="UTF-8"):
        load_cluster(path)


def test_a_truncated_dump_says_after_which_object_it_ends(tmp_path: Path) -> None:
    text = json.dumps(dump(NODE, POD, *OTHERS), indent=4)
    with pytest.raises(MalformedText, match=r"it ends after items\[0\] \(Node n1\)"):
        load_after(tmp_path / "c.json", text[: text.index('"p1"') + 2])


def test_errors_name_the_line_of_the_value(tmp_path: Path) -> None:
    requests = {"cpu": "1", "memory": "1e3Mi"}
    bad = changed(POD, "spec", "containers", value=[{"name": "app", "resources": {"requests": requests}}])
    text = json.dumps(dump(NODE, bad, *OTHERS), indent=4)
    line = text[: text.index("1e3Mi")].count("\n") + 1
    with pytest.raises(TreadleError) as caught:
        load_after(tmp_path / "c.json", text)
    assert f"c.json:{line}: Pod p1: container `app`, memory" in caught.value.render()


# objects


def test_kinds_of_other_groups_are_other_kinds() -> None:
    longhorn = {"apiVersion": "longhorn.io/v1beta2", "kind": "Node", "metadata": {"name": "n1"}}
    services = [{"apiVersion": f"{group}v1", "kind": "Service", "metadata": {"name": "s"}} for group in ("", "kn.dev/")]
    cluster = read({**POD, "apiVersion": "v1"}, longhorn, *services, {"kind": "Thing", "metadata": None})
    assert len(cluster.nodes) == 1
    assert any("Node (1), Thing (1)" in remark for remark in cluster.remarks)


def test_owners_of_any_kind_are_followed() -> None:
    owner = {
        "kind": "Rollout",
        "metadata": {"name": "r", "namespace": "web", "ownerReferences": [{"kind": "App", "name": "a"}]},
    }
    owned = changed(POD, "metadata", "ownerReferences", value=[{"kind": "Rollout", "name": "r", "controller": True}])
    assert read(owned, owner).shapes[0].workload == "App/a"


@pytest.mark.parametrize("metadata", [None, {}, {"name": ""}, {"name": 3}])
def test_objects_need_names(metadata: Any) -> None:
    with pytest.raises(MissingField, match=r"metadata\.name"):
        read(changed(POD, "metadata", value=metadata))


def test_duplicates_name_both_places(tmp_path: Path) -> None:
    text = json.dumps(dump(NODE, POD, *OTHERS, POD), indent=1)
    with pytest.raises(DuplicateName) as caught:
        load_after(tmp_path / "c.json", text)
    assert "the first is at" in caught.value.render()


def test_unknown_nodes_and_overfull_nodes_have_places(tmp_path: Path) -> None:
    gone = changed(POD, "spec", "nodeName", value="gone")
    with pytest.raises(UnknownNode, match="gone") as unknown:
        load_after(tmp_path / "c.json", json.dumps(dump(NODE, gone, *OTHERS)))
    assert unknown.value.place
    assert unknown.value.place.line == 1
    large = [{"name": "app", "resources": {"requests": {"cpu": "5"}}}]
    with pytest.raises(OverfullNode, match=r"5000m of cpu, it has 3920m; most ask p1 \(5000m\)") as overfull:
        load_after(
            tmp_path / "c.json", json.dumps(dump(NODE, changed(POD, "spec", "containers", value=large), *OTHERS))
        )
    assert overfull.value.place


def test_nodes_that_do_not_say_how_many_pods_they_take() -> None:
    cluster = cluster_from(
        dump(changed(NODE, "status", "allocatable", value={"cpu": "4", "memory": "64Gi"}), POD, *OTHERS), "f"
    )
    assert cluster.nodes[0].capacity["pods"] == 110
    assert any("110 each: n1" in remark for remark in cluster.remarks)


def test_pods_that_end_or_are_deleted_before_they_run() -> None:
    gone = changed(waiting(), "metadata", "deletionTimestamp", value="2026-11-21T00:00:00Z")
    leaving = changed(POD, "metadata", "deletionTimestamp", value="2026-11-21T00:00:00Z")
    cluster = read(leaving, gone)
    assert [(pod.name, pod.pinned) for pod in cluster.pods] == [("p1", "terminating")]


# requests


@pytest.mark.parametrize(
    ("status", "cpu"),
    [
        ({"allocatedResources": {"cpu": "2"}}, 2250),
        ({"resources": {"requests": {"cpu": "3"}}, "allocatedResources": {"cpu": "2"}}, 3250),
        ({"resources": {"requests": {"cpu": "100m"}}}, 750),
    ],
)
def test_containers_that_are_resized_in_place(status: dict[str, Any], cpu: int) -> None:
    made = changed(POD, "status", value={"phase": "Running", "containerStatuses": [{"name": "app", **status}]})
    assert read(made).shapes[0].requests["cpu"] == cpu


def test_a_resize_that_cannot_be_met_does_not_count() -> None:
    condition = {"type": "PodResizePending", "status": "True", "reason": "Infeasible"}
    statuses = [{"name": "app", "allocatedResources": {"cpu": "100m", "memory": "1Gi"}}]
    made = changed(POD, "status", value={"phase": "Running", "containerStatuses": statuses, "conditions": [condition]})
    assert read(made).shapes[0].requests["cpu"] == 350


def test_sidecars_count_with_containers_and_under_later_init_containers() -> None:
    def container(name: str, cpu: str, **more: str) -> dict[str, Any]:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}

    inits = [container("i", "1500m"), container("s", "1", restartPolicy="Always"), container("j", "1200m")]
    made = changed(POD, "spec", "initContainers", value=inits)
    assert read(made).shapes[0].requests["cpu"] == 2200
    level = changed(made, "spec", "resources", value={"requests": {"cpu": "3"}})
    assert read(level).shapes[0].requests["cpu"] == 3000


# rules


def affinity(**term: Any) -> dict[str, Any]:
    selected = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "p"}}, **term}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [selected]}}


@pytest.mark.parametrize(
    ("term", "spaces"),
    [
        ({}, ("web",)),
        ({"namespaceSelector": {}}, ()),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, ("blue",)),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}, "namespaces": ["x"]}, ("blue", "x")),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}, ("web",)),
        ({"namespaceSelector": {"matchLabels": {"team": "none"}}}, ("/",)),
    ],
)
def test_namespaces_of_pod_affinity(term: dict[str, Any], spaces: tuple[str, ...]) -> None:
    space = {"kind": "Namespace", "metadata": {"name": "blue", "labels": {"team": "a"}}}
    cluster = read(changed(POD, "spec", "affinity", value=affinity(**term)), space)
    assert cluster.shapes[0].anti_affinity[0].namespaces == spaces


def test_label_keys_of_pod_affinity() -> None:
    made = changed(POD, "metadata", "labels", value={"app": "p", "tenant": "t", "hash": "h"})
    made = changed(made, "spec", "affinity", value=affinity(matchLabelKeys=["hash"], mismatchLabelKeys=["tenant"]))
    (term,) = read(made).shapes[0].anti_affinity
    assert [(one.key, one.operator.value, one.values) for one in term.selector[1:]] == [
        ("hash", "In", ("h",)),
        ("tenant", "NotIn", ("t",)),
    ]


def test_numbers_in_selectors_are_numbers() -> None:
    terms = [{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["many"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    with pytest.raises(InvalidValue, match="whole number") as caught:
        read(changed(POD, "spec", "affinity", value={"nodeAffinity": required}))
    assert "Pod p1" in caught.value.render()


def test_sidecars_claim_host_ports() -> None:
    side = {"name": "s", "restartPolicy": "Always", "ports": [{"hostPort": 9}]}
    ports = (
        read(changed(POD, "spec", "initContainers", value=[side, {"name": "i", "ports": [{"hostPort": 7}]}]))
        .shapes[0]
        .ports
    )
    assert [port.number for port in ports] == [80, 9]


# volumes


def claim(**spec: Any) -> dict[str, Any]:
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "web"}, "spec": spec}


def volume(key: str = "rack", value: str = "r2", **spec: Any) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]
    return {
        "kind": "PersistentVolume",
        "metadata": {"name": "v"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, **spec},
    }


USES = [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]
ZONAL = {
    "kind": "PersistentVolume",
    "metadata": {"name": "v", "labels": {"topology.kubernetes.io/zone": "z2__z3"}},
    "spec": {},
}
BOUND = claim(volumeName="v", accessModes=["ReadWriteOnce"])
OTHER_NODE = changed(changed(NODE, "metadata", "name", value="n2"), "metadata", "labels", value={"rack": "r2"})


@pytest.mark.parametrize(
    "items",
    [
        (BOUND, volume()),
        (BOUND, ZONAL),
        (
            claim(storageClassName="zonal"),
            {"kind": "StorageClass", "metadata": {"name": "zonal"}, "allowedTopologies": [
                {"matchLabelExpressions": [{"key": "rack", "values": ["r2"]}]}
            ]},
        ),
        (changed(claim(), "metadata", "annotations", value={"volume.kubernetes.io/selected-node": "n2"}),),
    ],
)  # fmt: skip
def test_waiting_pods_go_where_their_volumes_are(items: tuple[dict[str, Any], ...]) -> None:
    labels = {"rack": "r2", "topology.kubernetes.io/zone": "z2"}
    other = changed(OTHER_NODE, "metadata", "labels", value=labels)
    pod = changed(waiting(), "spec", "nodeSelector", value={})
    cluster = read(changed(pod, "spec", "volumes", value=USES), other, *items)
    _, shape = shape_of(cluster, "p2")
    assert [not may_arrive(shape, node) for node in cluster.nodes] == [False, True]


def test_pods_that_run_move_within_the_reach_of_their_volumes() -> None:
    made = changed(POD, "spec", "volumes", value=USES)
    pod, shape = shape_of(read(made, BOUND, volume(value="r1")), "p1")
    assert (pod.pinned, pod.surge, len(shape.any_of)) == ("", False, 1)
    for local in (volume("kubernetes.io/hostname", "n1"), volume(local={"path": "/d"})):
        assert shape_of(read(made, BOUND, local), "p1")[0].pinned == "local volume"


def test_alternatives_of_affinity_and_volumes_are_multiplied() -> None:
    terms = [{"matchExpressions": [{"key": key, "operator": "Exists"}]} for key in ("a", "b")]
    required = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    made = changed(changed(POD, "spec", "volumes", value=USES), "spec", "affinity", value=required)
    _, shape = shape_of(read(made, BOUND, volume(value="r1")), "p1")
    assert [[one.key for one in term.labels] for term in shape.any_of] == [["a", "rack"], ["b", "rack"]]


# what moves, and how


DEPLOYMENT = {"kind": "Deployment", "metadata": {"name": "d", "namespace": "web"}}


@pytest.mark.parametrize(
    ("strategy", "surge"),
    [
        ({}, True),
        ({"type": "Recreate"}, False),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, False),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}, True),
    ],
)
def test_deployments_say_whether_a_replacement_starts_first(strategy: dict[str, Any], surge: bool) -> None:
    assert read(POD, {**DEPLOYMENT, "spec": {"strategy": strategy}}).pods[0].surge is surge


def annotated(value: str) -> dict[str, Any]:
    return changed(POD, "metadata", "annotations", value={"treadle.dev/restart-cost": value})


def test_restart_costs_are_annotations() -> None:
    assert read(annotated("7")).pods[0].restart_cost == 7
    for wrong in ("0", "-1", "x", "1.5", "10000000"):
        with pytest.raises(WrongType, match="restart-cost"):
            read(annotated(wrong))


def test_gates_and_preemption_policies_are_read() -> None:
    gated = changed(waiting(), "spec", "schedulingGates", value=[{"name": "wait"}])
    never = changed(waiting(name="p3"), "spec", "preemptionPolicy", value="Never")
    cluster = read(POD, gated, never)
    assert [pod.gated for pod in cluster.pods] == [False, True, False]
    assert [shape_of(cluster, pod.name)[1].preempts for pod in cluster.pods] == [True, True, False]
    assert any("scheduling gates" in remark for remark in cluster.remarks)


def budget(name: str, **spec: Any) -> dict[str, Any]:
    body = {"selector": {"matchLabels": {"app": "p"}}, **spec}
    return {"kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "web"}, "spec": body}


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"maxUnavailable": 1}, 0),
        ({"maxUnavailable": 2}, 1),
        ({"maxUnavailable": "34%"}, 1),
        ({"minAvailable": 1}, 1),
        ({"minAvailable": "50%"}, 0),
        ({"minAvailable": "0%"}, 2),
        ({}, 0),
    ],
)
def test_budgets_without_a_status(spec: dict[str, Any], allowed: int) -> None:
    """Three pods of which two run."""
    small = [changed(waiting(name=f"p{i}"), "spec", "nodeName", value="n1") for i in range(2)]
    cluster = cluster_from(dump(NODE, *small, waiting(name="w"), *OTHERS[:2], budget("b", **spec)), "f")
    assert cluster.budgets[0].disruptions_allowed == allowed
    assert any("without a status" in remark for remark in cluster.remarks)


@pytest.mark.parametrize("value", ["x", "-1%", "1.5", -1, True, [1]])
def test_budgets_that_say_no_number(value: Any) -> None:
    with pytest.raises(WrongType, match="maxUnavailable"):
        cluster_from(dump(NODE, POD, *OTHERS[:2], budget("b", maxUnavailable=value)), "f")


def test_pods_under_several_budgets_stay() -> None:
    more = {**budget("c"), "status": {"disruptionsAllowed": 1}}
    assert read(POD, more).pods[0].pinned == "several budgets: c, b"


# gangs


def member(name: str, phase: str = "Pending", **spec: Any) -> dict[str, Any]:
    made = changed(waiting(name=name), "status", "phase", value=phase)
    if spec:
        return {**made, "spec": {**made["spec"], **spec}}
    return changed(made, "metadata", "annotations", value={"scheduling.k8s.io/group-name": "g"})


def group(**spec: Any) -> dict[str, Any]:
    return {"kind": "PodGroup", "metadata": {"name": "g", "namespace": "web"}, "spec": spec}


def test_members_that_have_ended_no_longer_count() -> None:
    cluster = read(member("a", "Succeeded"), member("b"), member("c"), group(minMember=3))
    assert cluster.gangs[0].minimum == 2


def test_gangs_that_cannot_stand_are_told_and_stay_out() -> None:
    cluster = read(POD, member("a"), member("b"), group(minMember=3))
    assert any("web/g (2 of 3)" in remark for remark in cluster.remarks)
    assert pack(cluster, Options(deterministic_s=1.0)).placement.nodes == (0, PENDING, PENDING)


def test_groups_of_workloads() -> None:
    reference: dict[str, Any] = {"workloadRef": {"name": "w", "podGroup": "workers"}}
    policy: dict[str, Any] = {"gang": {"minCount": 2}}
    workload = {
        "apiVersion": "scheduling.k8s.io/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": "w", "namespace": "web"},
    }
    members = [member(name, **reference) for name in "abc"]
    groups = {"podGroups": [{"name": "workers", "policy": policy}]}
    cluster = read(*members, {**workload, "spec": groups})
    assert [(gang.name, gang.minimum) for gang in cluster.gangs] == [("web/w/workers", 2)]
    policy.clear()
    policy["basic"] = {}
    assert not read(*members, {**workload, "spec": groups}).gangs
    assert read(*members).gangs[0].minimum == 3
    named = [member(name, schedulingGroup={"podGroupName": "g"}) for name in "ab"]
    assert read(*named, group(schedulingPolicy={"gang": {"minCount": 1}})).gangs[0].minimum == 1
    assert not read(*named, group(schedulingPolicy={"basic": {}})).gangs


# what is told


def test_what_is_not_honoured_is_told() -> None:
    soft = [{"whenUnsatisfiable": "ScheduleAnyway", "topologyKey": "rack", "maxSkew": 1}]
    pods = [
        changed(waiting(name="soft"), "spec", "topologySpreadConstraints", value=soft),
        changed(waiting(name="numbers"), "spec", "tolerations", value=[{"key": "k", "operator": "Gt", "value": "3"}]),
        changed(waiting(name="unseen"), "spec", "volumes", value=USES),
        changed(waiting(name="chosen"), "status", "nominatedNodeName", value="n1"),
        changed(waiting(name="classless"), "spec", "priorityClassName", value="gone"),
    ]
    away = changed(OTHER_NODE, "status", "conditions", value=[{"type": "Ready", "status": "Unknown"}])
    told = cluster_from(dump(NODE, away, *pods, *OTHERS[:2]), "f").remarks
    for words in (
        "preferences", "compare numbers", "web/unseen", "web/chosen", "web/classless (gone)", "not ready",
        "no PodDisruptionBudget",
    ):  # fmt: skip
        assert any(words in remark for remark in told), words


# any value


RICH = changed(waiting(), "spec", "affinity", value=affinity(namespaceSelector={"matchLabels": {"a": "b"}}))
RICH["spec"] |= {
    "volumes": USES,
    "schedulingGates": [{"name": "x"}],
    "topologySpreadConstraints": [
        {"topologyKey": "rack", "maxSkew": 1, "minDomains": 2, "labelSelector": {"matchLabels": {"app": "p"}}}
    ],
}
RICH["metadata"]["annotations"] = {"scheduling.k8s.io/group-name": "g", "treadle.dev/restart-cost": "3"}
RICH["metadata"]["annotations"]["gpu-fraction"] = "0.5"
SIZES = {"name": "app", "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1"}}}
WHOLE = dump(
    NODE, changed(POD, "status", "containerStatuses", value=[SIZES]), RICH, *OTHERS[:2], BOUND, volume(),
    budget("b", maxUnavailable="25%"), {**DEPLOYMENT, "spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}},
    group(minMember=1), {"kind": "Namespace", "metadata": {"name": "web", "labels": {"a": "b"}}},
)  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(paths(WHOLE)), st.sampled_from(WRONG))
def test_any_wrong_value_is_a_located_error_or_packed(path: tuple[str | int, ...], wrong: Any) -> None:
    document: Any = copy.deepcopy(WHOLE)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = wrong
    refused: list[TreadleError] = []
    try:
        pack(cluster_from(document, "f.json"), Options(deterministic_s=0.01))
    except TreadleError as error:
        refused.append(error)
    assert all(error.place for error in refused)


@pytest.mark.parametrize("amount", ["9" * 30, "1e99", "2Pi", "1e16"])
def test_amounts_that_cannot_be_added_up_are_refused(amount: str) -> None:
    made = changed(
        waiting(), "spec", "containers", value=[{"name": "app", "resources": {"requests": {"memory": amount}}}]
    )
    with pytest.raises(BadQuantity, match=amount):
        read(made)


@pytest.mark.parametrize(
    ("allocatable", "volumes", "told"),
    [
        ([{"name": "ebs", "allocatable": {"count": 25}}], USES, True),
        ([{"name": "ebs", "allocatable": {"count": 25}}], [{"name": "v", "csi": {"driver": "ebs"}}], True),
        ([{"name": "ebs", "allocatable": {"count": 25}}], [{"name": "v", "emptyDir": {}}], False),
        ([{"name": "nfs"}, {"name": "smb", "allocatable": {}}], USES, False),
        (None, USES, True),
    ],
)
def test_limits_of_attached_volumes_are_told(allocatable: Any, volumes: Any, *, told: bool) -> None:
    drivers = {"kind": "CSINode", "metadata": {"name": "n1"}, "spec": {"drivers": allocatable}}
    pod = changed(waiting(), "spec", "volumes", value=volumes)
    remarks = read(pod, *([drivers] if allocatable else [])).remarks
    assert any("(CSINode) is not kept: web/p2" in remark for remark in remarks) is told
    assert not any("not read" in remark for remark in remarks)


@pytest.mark.parametrize("drivers", [3, ["x"], {"name": "ebs"}])
def test_wrong_drivers_of_a_node_are_errors(drivers: Any) -> None:
    with pytest.raises(WrongType, match="drivers"):
        read(POD, {"kind": "CSINode", "metadata": {"name": "n1"}, "spec": {"drivers": drivers}})


def test_policies_for_unhealthy_pods_are_told() -> None:
    policy = changed(OTHERS[2], "spec", "unhealthyPodEvictionPolicy", value="AlwaysAllow")
    told = [r for r in cluster_from(dump(NODE, POD, *OTHERS[:2], policy), "f").remarks if "unhealthyPod" in r]
    assert told == [
        "1 disruption budgets with `unhealthyPodEvictionPolicy`; pods that are not ready count like ready ones: b"
    ]
    assert not any("unhealthyPod" in remark for remark in read(POD).remarks)
