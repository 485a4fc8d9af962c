"""Dumps, quantities and lists: what is read, and what is said about bad ones."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.frontends.kubernetes.cluster import cluster_from, load_cluster
from treadle.frontends.kubernetes.quantity import amount, parse_quantity
from treadle.frontends.openb import load_openb
from treadle.frontends.roadef import load_roadef
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.errors import (
    BadQuantity,
    CyclicOwners,
    DuplicateName,
    NegativeAmount,
    NotACluster,
    OverfullNode,
    UnknownNode,
    UnsupportedClaim,
    UnsupportedRule,
)
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import MalformedText, MissingField, WrongType

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
SUFFIXES = ["", "m", "u", "n", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti"]
NODE: dict[str, Any] = {
    "kind": "Node",
    "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "rack": "r1"}},
    "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"cpu": "3920m", "memory": "16Gi", "nvidia.com/gpu": "8", "pods": "110"}},
}
POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {
        "name": "p1",
        "namespace": "web",
        "labels": {"app": "p", "apps.kubernetes.io/pod-index": "0"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "controller": True}],
    },
    "spec": {
        "nodeName": "n1",
        "priorityClassName": "high",
        "nodeSelector": {"rack": "r1"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {"name": "app", "resources": {"requests": {"cpu": "0.5", "memory": "1Gi"}}, "ports": [{"hostPort": 80}]},
            {"name": "side", "resources": {"limits": {"cpu": "250m"}}},
        ],
        "initContainers": [{"name": "init", "resources": {"requests": {"memory": "3Gi"}}}],
        "overhead": {"memory": "1Mi"},
    },
    "status": {"phase": "Running"},
}
OTHERS: list[dict[str, Any]] = [
    {"kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000},
    {
        "kind": "ReplicaSet",
        "metadata": {"name": "rs", "namespace": "web", "ownerReferences": [{"kind": "Deployment", "name": "d"}]},
    },
    {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "web"},
        "spec": {"selector": {"matchLabels": {"app": "p"}}},
        "status": {"disruptionsAllowed": 1},
    },
]


def dump(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "List", "items": [copy.deepcopy(item) for item in items]}


def changed(item: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(item)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


def test_a_dump_is_read_whole() -> None:
    cluster = cluster_from(dump(NODE, POD, *OTHERS), "f.json")
    (shape,) = cluster.shapes
    assert cluster.nodes[0].capacity["cpu"] == 3920
    assert shape.requests == {"cpu": 750, "memory": (3 << 30) + (1 << 20), "pods": 1}
    assert (shape.priority, shape.workload, shape.ports[0].number) == (1000, "Deployment/d", 80)
    assert shape.labels == {"app": "p"}
    assert cluster.pods[0].pinned == ""
    assert cluster.budgets[0].disruptions_allowed == 1


def test_identical_pods_share_a_shape_and_ended_ones_are_left_out() -> None:
    second = changed(changed(POD, "metadata", "name", value="p2"), "spec", "nodeName", value=None)
    third = changed(changed(POD, "metadata", "name", value="p3"), "status", "phase", value="Succeeded")
    cluster = cluster_from(dump(NODE, POD, second, third, *OTHERS), "f.json")
    assert len(cluster.shapes) == 1
    assert [pod.node for pod in cluster.pods] == [0, PENDING]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((("metadata", "ownerReferences"), [{"kind": "DaemonSet", "name": "d"}]), "DaemonSet"),
        ((("metadata", "ownerReferences"), []), "no controller"),
        ((("metadata", "annotations"), {"karpenter.sh/do-not-disrupt": "true"}), "do-not-disrupt"),
        (
            (("metadata", "annotations"), {SAFE_TO_EVICT: "false"}),
            "safe-to-evict: false",
        ),
        ((("metadata", "annotations"), {"kubernetes.io/config.mirror": "x"}), "mirror pod"),
        ((("spec", "volumes"), [{"persistentVolumeClaim": {"claimName": "c"}}]), "volume c not in the dump"),
    ],
)
def test_pods_that_must_stay_are_pinned(change: tuple[tuple[str, ...], Any], reason: str) -> None:
    path, value = change
    cluster = cluster_from(dump(NODE, changed(POD, *path, value=value), *OTHERS), "f.json")
    assert cluster.pods[0].pinned == reason


def test_rules_are_read() -> None:
    spec = changed(
        POD,
        "spec",
        "affinity",
        value={
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "p"}}}
                ]
            },
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "Exists"}]}]
                }
            },
        },
    )
    spread = {"topologyKey": "rack", "maxSkew": 2, "labelSelector": {}, "whenUnsatisfiable": "DoNotSchedule"}
    spec = changed(spec, "spec", "topologySpreadConstraints", value=[spread])
    (shape,) = cluster_from(dump(NODE, spec, *OTHERS), "f.json").shapes
    assert shape.anti_affinity[0].namespaces == ("web",)
    assert shape.spreads[0].max_skew == 2
    assert len(shape.any_of) == 1


def test_gangs_and_fractions_are_read() -> None:
    group = {"kind": "PodGroup", "metadata": {"name": "g", "namespace": "web"}, "spec": {"minMember": 1}}
    pod = changed(POD, "metadata", "annotations", value={"gpu-fraction": "0.5", "scheduling.k8s.io/group-name": "g"})
    cluster = cluster_from(dump(NODE, pod, group, *OTHERS), "f.json")
    assert cluster.gangs[0].minimum == 1
    assert cluster.shapes[0].device is not None
    assert cluster.shapes[0].device.slots == 500
    assert cluster.nodes[0].devices is not None
    assert cluster.nodes[0].devices.count == 8


def _requests(**requests: Any) -> dict[str, Any]:
    return changed(POD, "spec", "containers", value=[{"name": "app", "resources": {"requests": requests}}])


@pytest.mark.parametrize(
    ("document", "error", "word"),
    [
        ([], NotACluster, "List"),
        ({"items": [{}]}, NotACluster, "kind"),
        (dump(POD), NotACluster, "Node"),
        (dump(NODE, _requests(memory="1e3Mi")), BadQuantity, "1e3Mi"),
        (dump(NODE, _requests(memory=True)), BadQuantity, "True"),
        (dump(NODE, _requests(cpu="-1")), NegativeAmount, "-1"),
        (dump(NODE, _requests(cpu="100")), OverfullNode, "n1"),
        (dump(NODE, changed(POD, "spec", "nodeName", value="gone")), UnknownNode, "gone"),
        (dump(NODE, POD, POD), DuplicateName, "p1"),
        (dump(NODE, changed(POD, "spec", "resourceClaims", value=[{"name": "c"}])), UnsupportedClaim, "is in the dump"),
        (dump(NODE, changed(POD, "spec", "containers", value="x")), WrongType, "containers"),
        (dump(NODE, changed(POD, "metadata", "labels", value=[1])), WrongType, "labels"),
        (
            dump(
                NODE,
                POD,
                changed(OTHERS[1], "metadata", "ownerReferences", value=[{"kind": "ReplicaSet", "name": "rs"}]),
            ),
            CyclicOwners,
            "cycle",
        ),
    ],
)
def test_bad_dumps_are_coded_errors(document: object, error: type[TreadleError], word: str) -> None:
    with pytest.raises(error) as caught:
        cluster_from(document, "f.json")
    assert word in caught.value.render()


def test_errors_name_line_and_object(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps(dump(NODE, _requests(memory="1e3Mi")), indent=1))
    with pytest.raises(BadQuantity) as caught:
        load_cluster(path)
    assert f"{path}:" in caught.value.render()
    assert "Pod p1: container `app`, memory" in caught.value.render()


def test_truncated_json_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps(dump(NODE))[:-5])
    with pytest.raises(MalformedText):
        load_cluster(path)


def test_pods_without_requests_take_a_place_and_nothing_else() -> None:
    bare = changed(POD, "spec", "containers", value=[{"name": "app"}])
    bare["spec"].pop("initContainers")
    bare["spec"].pop("overhead")
    assert cluster_from(dump(NODE, bare, *OTHERS), "f.json").shapes[0].requests == {"pods": 1}


NUMBERS = st.one_of(  # the client counts in 28 digits
    st.integers(0, 10**8).map(str),
    st.decimals(0, 10**3, places=3, allow_nan=False).map(str),
    st.from_regex(r"[0-9]{1,4}\.[0-9]{1,4}", fullmatch=True),
)


def test_quantities_agree_with_the_official_client() -> None:
    quantities = pytest.importorskip("kubernetes.utils.quantity")

    @settings(deadline=None)
    @given(NUMBERS, st.sampled_from([*SUFFIXES, "Pi", "Ei", "e3", "E-2", "e12"]))
    def agree(number: str, suffix: str) -> None:
        official = quantities.parse_quantity(number + suffix)
        assert parse_quantity(number + suffix) == Fraction(official)

    agree()


@pytest.mark.parametrize("text", ["", "x", "1x", "1KI", "1.2.3", "Ki", "--1", "0x10"])
def test_what_the_official_client_refuses_is_refused(text: str) -> None:
    quantities = pytest.importorskip("kubernetes.utils.quantity")
    with pytest.raises(ValueError, match=r"."):
        quantities.parse_quantity(text)
    with pytest.raises(BadQuantity):
        parse_quantity(text)


def test_jobs_of_a_set_with_an_exclusive_topology_are_gangs_of_their_own() -> None:
    labels = {"app": "p", "jobset.sigs.k8s.io/jobset-name": "train"}
    made = changed(POD, "spec", "containers", value=[{"name": "app"}])
    made = changed(made, "metadata", "labels", value={**labels, "jobset.sigs.k8s.io/job-key": "k1"})
    plain = cluster_from(dump(NODE, made, *OTHERS), "f.json").gangs[0]
    assert (plain.name, plain.minimum, plain.topology_key) == ("web/train", 1, "")
    made = changed(made, "metadata", "annotations", value={"alpha.jobset.sigs.k8s.io/exclusive-topology": "rack"})
    apart = cluster_from(dump(NODE, made, *OTHERS), "f.json").gangs[0]
    assert (apart.name, apart.topology_key) == ("web/train/k1", "rack")


def test_replicas_of_a_leader_worker_set_are_gangs() -> None:
    made = changed(POD, "metadata", "labels", value={"leaderworkerset.sigs.k8s.io/group-key": "g1"})
    made = changed(made, "metadata", "annotations", value={"leaderworkerset.sigs.k8s.io/size": "1"})
    gang = cluster_from(dump(NODE, made, *OTHERS), "f.json").gangs[0]
    assert (gang.name, gang.minimum) == ("web/g1", 1)
    with pytest.raises(WrongType, match="size"):
        cluster_from(
            dump(NODE, changed(made, "metadata", "annotations", value={"leaderworkerset.sigs.k8s.io/size": "x"})), "f"
        )


@pytest.mark.parametrize(
    ("spec", "minimum", "key"),
    [
        ({"minMember": 1}, 1, ""),
        (
            {"policy": {"gang": {"minCount": 1}}, "schedulingConstraints": {"topology": [{"key": "clique"}]}},
            1,
            "clique",
        ),
    ],
)
def test_pod_groups_of_all_kinds(spec: dict[str, Any], minimum: int, key: str) -> None:
    made = changed(POD, "metadata", "labels", value={"scheduling.x-k8s.io/pod-group": "g"})
    group = {"kind": "PodGroup", "metadata": {"name": "g", "namespace": "web"}, "spec": spec}
    gang = cluster_from(dump(NODE, made, group, *OTHERS), "f.json").gangs[0]
    assert (gang.minimum, gang.topology_key) == (minimum, key)


def test_topologies_that_are_no_labels_are_refused() -> None:
    made = changed(POD, "metadata", "annotations", value={"scheduling.k8s.io/group-name": "g"})
    spec = {"minMember": 1, "networkTopology": {"mode": "hard", "highestTierAllowed": 1}}
    group = {"kind": "PodGroup", "metadata": {"name": "g", "namespace": "web"}, "spec": spec}
    with pytest.raises(UnsupportedRule, match="networkTopology"):
        cluster_from(dump(NODE, made, group, *OTHERS), "f.json")


@given(st.integers(0, 10**12), st.sampled_from(SUFFIXES))
def test_quantities_are_exact(number: int, suffix: str) -> None:
    powers = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
    binary = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}
    factor = Fraction(1024) ** binary[suffix] if suffix in binary else Fraction(1000) ** powers[suffix]
    assert parse_quantity(f"{number}{suffix}") == number * factor


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("1.5Gi", 3 << 29), (".5", Fraction(1, 2)), ("2E", 2 * 10**18), ("1E2", 100), (4, 4)],
)
def test_forms_of_quantities(text: object, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1e3Mi", "1 Gi", "1K", "0x10", "1e", "nan", None, 1.5])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(BadQuantity):
        parse_quantity(text)


def test_amounts_are_rounded_to_the_safe_side() -> None:
    assert amount("cpu", Fraction(1, 3), up=True) == 334
    assert amount("cpu", Fraction(1, 3), up=False) == 333
    assert amount("memory", Fraction(5, 2), up=True) == 3


def test_openb_lists(tmp_path: Path) -> None:
    nodes, pods = tmp_path / "n.csv", tmp_path / "p.csv"
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\nn0,64000,1024,2,P100\nn1,32000,1024,0,\n")
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
    pods.write_text(header + "a,1000,10,1,460,\nb,1000,10,2,1000,P100|T4\nc,1000,10,0,0,\n")
    cluster = load_openb(nodes, pods)
    assert [shape.device and shape.device.slots for shape in cluster.shapes] == [460, 1000, None]
    assert cluster.shapes[1].selector[0].values == ("P100", "T4")
    pods.write_text(header + "a,x,10,1,460,\n")
    with pytest.raises(BadQuantity):
        load_openb(nodes, pods)
    pods.write_text("name\na\n")
    with pytest.raises(MissingField) as missing:
        load_openb(nodes, pods)
    assert "nodes comes first" in missing.value.render()
    pods.write_text(header + "a,1000\n")
    with pytest.raises(MalformedText) as short:
        load_openb(nodes, pods)
    assert "the 6 columns" in short.value.render()
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\n")
    pods.write_text(header)
    with pytest.raises(NotACluster, match="no node"):
        load_openb(nodes, pods)


def test_roadef_files_are_read_to_the_end(tmp_path: Path) -> None:
    model, assignment = tmp_path / "m.txt", tmp_path / "a.txt"
    text = "1\n1 10\n2\n0 0 10 5 0 1\n0 1 10 5 1 0\n1\n1 0\n2\n0 3 7\n0 4 7\n0\n1 1 1\n"
    model.write_text(text)
    assignment.write_text("0 1")
    instance = load_roadef(model, assignment)
    assert instance.transient == (True,)
    assert instance.machines[1].location == 1
    for broken in (text + " 5", text[:-3], text.replace("10 5", "x 5")):
        model.write_text(broken)
        with pytest.raises(MalformedText):
            load_roadef(model, assignment)
    model.write_text(text)
    for numbers, words in (("0", "ends after 1 numbers"), ("0 1 1", "1 numbers too many"), ("0 -1", "from 0")):
        assignment.write_text(numbers)
        with pytest.raises(MalformedText, match=words) as caught:
            load_roadef(model, assignment)
        assert "2 processes of the model" in caught.value.render()
    model.write_text("1\n1 10\n0\n0\n0\n0\n1 1 1\n")
    with pytest.raises(MalformedText, match="no machine"):
        load_roadef(model, assignment)
    model.write_text(text)
    assignment.write_text("0 2")
    with pytest.raises(MalformedText, match="a process on machine 2"):
        load_roadef(model, assignment)
    assignment.write_text("0 1")
    model.write_text(text.replace("0 3 7", "4 3 7"))
    with pytest.raises(MalformedText, match="service"):
        load_roadef(model, assignment)


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at] if at else []
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += paths(inner, (*at, step))
    return found


WHOLE = dump(NODE, POD, *OTHERS)
WRONG: list[Any] = [None, "", -1, 1.5, True, [], {}, [1], ["x"], {"a": 1}, "1e3Mi", 10**30, [{}], [None]]


@given(st.sampled_from(paths(WHOLE)), st.sampled_from(WRONG))
def test_any_wrong_value_is_a_coded_error_or_read(path: tuple[str | int, ...], wrong: Any) -> None:
    document: Any = copy.deepcopy(WHOLE)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = wrong
    with suppress(TreadleError):
        assert cluster_from(document, "f.json").nodes
