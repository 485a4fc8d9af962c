"""The room folders, their links in treadle/, and pyproject.toml must agree."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
MAPPING: dict[str, str] = SETUPTOOLS["package-dir"]


def test_every_room_is_linked() -> None:
    for package, folder in MAPPING.items():
        link = ROOT / package.replace(".", "/")
        assert link.resolve() == (ROOT / folder).resolve(), f"{link} should be a link to {folder}/"


def test_every_package_is_listed() -> None:
    found: set[str] = set()
    for package, folder in MAPPING.items():
        base = ROOT / folder
        for init in base.rglob("__init__.py"):
            rel = init.parent.relative_to(base).parts
            if package == "treadle" and rel and (base / rel[0]).is_symlink():
                continue
            found.add(".".join((package, *rel)))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)
