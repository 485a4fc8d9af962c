"""Bundles: pods by file into the packer, manifests that stay on planned nodes, parts that must belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from treadle.cli.main import main
from treadle.codegen.folder import write_plan
from treadle.frontends.errors import NoGpusThere
from treadle.frontends.serving_nodes import free_gpus
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan, load
from treadle.verification.core import verify

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama-3.1-70b-h200"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "plan"
    arguments = ["compile", str(EXAMPLE), "-o", str(folder), "--no-compile", "--limit", "0.01", "--json"]
    assert main(arguments) in (ExitCode.DONE, ExitCode.LIMIT)
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "plan"))


def test_serve_then_pack_by_files_places_every_engine(bundle: Path, tmp_path: Path) -> None:
    cluster = bundle / "serving" / "deploy" / "cluster.json"
    assert main(["pack", str(cluster), "--json", "-o", str(tmp_path / "packed")]) == ExitCode.DONE
    body = load(tmp_path / "packed").body
    assert PENDING not in body.placement.nodes
    assert body == load(bundle / "packing").body


def test_manifests_keep_engines_on_their_nodes(bundle: Path) -> None:
    top = yaml.safe_load((bundle / "deploy" / "kustomization.yaml").read_text())
    assert top["resources"] == ["../serving/deploy"]
    inner = yaml.safe_load((bundle / "serving" / "deploy" / "kustomization.yaml").read_text())
    names = set()
    for file in inner["resources"]:
        documents = yaml.safe_load_all((bundle / "serving" / "deploy" / file).read_text())
        names |= {(one["kind"], one["metadata"]["name"]) for one in documents}
    for patch in top["patches"]:
        document = yaml.safe_load((bundle / "deploy" / patch["path"]).read_text())
        assert (document["kind"], document["metadata"]["name"]) in names


Change = Callable[[Plan], Plan]


def rewrite(folder: Path, change: Change) -> None:
    """Change a part and seal it again, as a careful forger would."""
    plan = load(folder)
    files = {artifact.path: (folder / artifact.path).read_bytes() for artifact in plan.artifacts}
    write_plan(folder, change(plan), files)


FORGERIES: list[tuple[str, Change]] = [
    ("serving", lambda plan: replace(plan, body=replace(plan.body, model="another"))),
    ("serving", lambda plan: replace(plan, inputs=plan.inputs[1:])),
    ("serving", lambda plan: replace(plan, body=replace(plan.body, levels=plan.body.levels[:1]))),
    ("serving", lambda plan: replace(plan, body=replace(plan.body, kv_bytes_per_token=1.0))),
    (
        "packing",
        lambda plan: replace(
            plan,
            body=replace(
                plan.body, placement=replace(plan.body.placement, nodes=(*plan.body.placement.nodes[:-1], PENDING))
            ),
        ),
    ),
]


@pytest.mark.parametrize(("part", "change"), FORGERIES)
def test_parts_that_do_not_belong_together_are_found(copy: Path, part: str, change: Change) -> None:
    assert verify(copy).findings == ()
    rewrite(copy / part, change)
    assert "TRD429" in {finding.code for finding in verify(copy).findings}


def test_free_gpus_are_what_running_pods_leave() -> None:
    found = free_gpus(EXAMPLE / "nodes.json", "h200")
    assert (found.product, found.per_node) == ("NVIDIA-H200", (8, 8, 4, 8))
    with pytest.raises(NoGpusThere, match="b200"):
        free_gpus(EXAMPLE / "nodes.json", "b200")


def test_a_specification_without_levels_has_kernels_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "example"))
    file = folder / "deployment.toml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(("slo", "goal"))))
    arguments = ["compile", str(file), "-o", str(tmp_path / "plan"), "--no-compile", "--limit", "0.01", "--json"]
    assert main(arguments) in (ExitCode.DONE, ExitCode.LIMIT)
    assert json.loads(capsys.readouterr().out)["parts"] == {}
