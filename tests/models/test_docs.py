"""The page about inputs says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from tests.models.conftest import EXAMPLES
from treadle.frontends.families import FAMILIES
from treadle.frontends.spec import load_deployment

PAGE = (EXAMPLES.parent / "docs" / "inputs.md").read_text(encoding="utf-8")


def test_every_family_is_listed() -> None:
    listed = PAGE.split("<!-- families -->")[1].split("\n\n")[0]
    assert set(re.findall(r"`([^`]+)`", listed)) - {"model_type"} == set(FAMILIES)


def test_the_specification_on_the_page_is_read(tmp_path: Path) -> None:
    source = EXAMPLES / "llama-3.1-8b-h200"
    for name in ("config.json", "lengths.toml"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    text = PAGE.split("```toml\n")[1].split("```")[0]
    (tmp_path / "deployment.toml").write_text(text)
    deployment = load_deployment(tmp_path)
    assert [level.percentile for level in deployment.service_levels] == [90, 99.9, 50]
    assert deployment.weight_dtype == "float8_e4m3"


def test_the_python_on_the_page_runs() -> None:
    code = PAGE.split("```python\n")[1].split("```")[0].replace("examples/", f"{EXAMPLES}/")
    names: dict[str, object] = {}
    exec(compile(code, "docs/inputs.md", "exec"), names)
    assert "model" in names
