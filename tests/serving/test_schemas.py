"""Emitted files against schemas: strictly against the published ones where they are, and every damage is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml
from jsonschema.validators import validator_for

from tests.serving.schemas import ENGINES, KINDS
from tests.serving.test_serve import BIG, disaggregated_plan, request
from treadle.codegen.serving.files import serving_files
from treadle.codegen.serving.pools import VERSIONS
from treadle.solvers.serving.fleet_plan import plan_serving

CRDS = {
    "LeaderWorkerSet": ("lws_leaderworkersets", "v1"),
    "DisaggregatedSet": ("lws_disaggregatedsets", "v1"),
    "LLMInferenceService": ("kserve_llminferenceservices", "v1alpha2"),
}
published = pytest.mark.skipif(not BIG.is_dir(), reason="the published schemas are not there; the small ones are used")


@cache
def emitted(split: bool) -> tuple[tuple[str, Any], ...]:
    body = disaggregated_plan() if split else plan_serving(request())[0]
    files = serving_files(body, "llm")
    return tuple((path, one) for path, data in sorted(files.items()) for one in yaml.safe_load_all(data))


@cache
def custom_resource(kind: str) -> Any:
    """Return the published schema of a kind, closed as strict validation of the API server closes it."""
    name, version = CRDS[kind]
    crd = yaml.load((BIG / f"{name}.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (found,) = [one for one in crd["spec"]["versions"] if one["name"] == version]
    assert f"{crd['spec']['group']}/{version}" in VERSIONS.values()
    schema = found["schema"]["openAPIV3Schema"]
    schema["properties"].pop("metadata", None)
    return {**strict(schema), "additionalProperties": True}


def strict(schema: Any) -> Any:
    """Refuse unknown fields, as `kubectl --validate=strict` does, and drop what JSON Schema does not know."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {key: strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if "properties" in schema and isinstance(schema["properties"], dict) and "additionalProperties" not in schema:
        kept["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return kept


@published
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", CRDS)
def test_custom_resources_pass_the_published_schemas_strictly(kind: str, split: bool) -> None:
    mine = [one for _, one in emitted(split) if isinstance(one, dict) and one.get("kind") == kind]
    assert bool(mine) == (split or kind != "DisaggregatedSet")
    validator = jsonschema.Draft202012Validator(custom_resource(kind))
    for document in mine:
        assert [error.message for error in validator.iter_errors(document)] == []
    for document in mine[:1]:
        for path, damaged in damages({"spec": document["spec"]}, typed_only=True):
            assert not validator.is_valid({**document, **damaged}), path


@published
@pytest.mark.parametrize("kind", CRDS)
def test_the_small_schemas_say_what_the_published_ones_say(kind: str) -> None:
    small, big = KINDS[kind]["properties"]["spec"], custom_resource(kind)["properties"]["spec"]
    assert list(differences(small, big, "spec")) == []


def differences(small: Any, big: Any, where: str) -> Iterator[str]:
    """Yield what keeps a small schema from saying what the published one does: fields, types, what is required."""
    if "const" in small or "enum" in small or big.get("type") == ["integer", "string"]:
        return
    if small.get("type") != big.get("type"):
        yield f"{where}: {small.get('type')} instead of {big.get('type')}"
    missing = set(big.get("required", ())) - set(small.get("required", ()))
    if missing and small.get("properties"):
        yield f"{where}: {sorted(missing)} are required"
    for name, part in small.get("properties", {}).items():
        if "properties" in big and name not in big["properties"]:
            yield f"{where}.{name}: no such field"
        elif "properties" in big:
            yield from differences(part, big["properties"][name], f"{where}.{name}")
    if "items" in small:
        yield from differences(small["items"], big["items"], f"{where}[]")


def damages(document: Any, typed_only: bool = False) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the document with one field too many, one value of another type, or (not only typed) one field too few."""
    for path, value in walk(document):
        if isinstance(value, dict) and not free(path):
            yield path, changed(document, (*path, "unknownField"), 1)
        elif isinstance(value, bool | int | float):
            yield path, changed(document, path, [value])
        elif isinstance(value, str) and not free(path[:-1]):
            yield path, changed(document, path, {"value": value})
    if not typed_only:
        for name in document:
            yield (name,), {key: value for key, value in document.items() if key != name}


FREE = {"labels", "limits", "requests", "matchLabels", "nodeSelector", "selector", "metadata", "router"}
"""Tables whose fields are the user's, or that the small schemas leave open."""


def free(path: tuple[str | int, ...]) -> bool:
    return bool(FREE & set(path))


def walk(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if path:
        yield path, value
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from walk(item, (*path, key))


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    copied = deepcopy(document)
    place = copied
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copied


OPEN = {
    "ports",
    "readinessProbe",
    "volumeMounts",
    "volumes",
    "tolerations",
    "kv_cache_config",
    "cache_transceiver_config",
}
"""Parts that the small schemas leave open: `kubernetes-validate` and the published ones look into those of pods."""
OPTIONAL = {"enable-expert-parallel", "disaggregation-mode", "disaggregation-transfer-backend", "kv-transfer-config"}
OPTIONAL_ROLES = {"cache_transceiver_config", "disable_overlap_scheduler"}


@pytest.mark.parametrize("split", [False, True])
def test_damaged_files_fail_their_schemas(split: bool) -> None:
    tried, passed = 0, list[object]()
    for file, document in emitted(split):
        schema = ENGINES[file.split(".")[-2]] if file.startswith("engines/") else KINDS.get(document.get("kind", ""))
        if schema is None or document.get("kind") in ("List", "Kustomization"):
            continue
        for path, broken in damages(document):
            if OPEN & set(path) or (len(path) == 1 and path[0] in OPTIONAL | OPTIONAL_ROLES):
                continue
            tried += 1
            if jsonschema.Draft202012Validator(schema).is_valid(broken):
                passed.append((file, path))
    assert passed == []
    assert tried > 100


@pytest.mark.parametrize("split", [False, True])
def test_core_kinds_pass_kubernetes_own_schemas(split: bool) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for path, document in emitted(split):
        if path.startswith("deploy/deployments"):
            assert validate.validate(document, "1.31", strict=True)
            with pytest.raises(validate.ValidationError):
                validate.validate({**document, "spec": {**document["spec"], "replica": 1}}, "1.31", strict=True)


@published
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", ["llm-d", "production-stack"])
def test_chart_values_of_another_type_are_refused(name: str, split: bool) -> None:
    file = "llm-d-modelservice_values" if name == "llm-d" else "production-stack_values"
    schema = json.loads((BIG / f"{file}.schema.json").read_text())
    validator = validator_for(schema)(schema)
    (values,) = [one for path, one in emitted(split) if path == f"deploy/{name}.values.yaml"]
    assert validator.is_valid(values)
    key = "multinode" if name == "llm-d" else "servingEngineSpec"
    assert not validator.is_valid({**values, key: "three"})


def test_dynamo_components_hold_its_own_rules() -> None:
    """One main container with Dynamo's image each, and names that differ whatever their case."""
    for split in (False, True):
        (graph,) = [one for path, one in emitted(split) if path == "deploy/dynamo.yaml"]
        components = graph["spec"]["components"]
        names = [one["name"].lower() for one in components]
        assert len(set(names)) == len(names)
        for one in components:
            (main,) = [part for part in one["podTemplate"]["spec"]["containers"] if part["name"] == "main"]
            assert main["image"] == f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{VERSIONS['dynamo-runtime']}"
            assert main["args"][0] == "-m"
            assert main["args"][1].startswith("dynamo.")
