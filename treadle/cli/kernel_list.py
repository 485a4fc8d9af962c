"""What `treadle kernel --list` prints: the families of the library, or the shape, tiles and switches of one."""

from __future__ import annotations

import sys

from treadle.cli.output import print_json, say
from treadle.driver.shapes import DEFAULT_SHAPES, DEFAULT_TILES
from treadle.frontends import programs
from treadle.frontends.programs.shapes import DTYPES, Family


def list_families(name: str, *, as_json: bool) -> None:
    """Print all families, or one in full; raises UnknownFamily."""
    families = [programs.family(name)] if name else [programs.family(known) for known in programs.FAMILIES]
    if as_json:
        print_json({"families": [_data(family) for family in families]})
    elif name:
        _show(families[0])
    else:
        width = max(len(family.name) for family in families)
        sys.stdout.writelines(f"{family.name:<{width}}  {family.summary}\n" for family in families)
        say("`treadle kernel NAME --list` shows shape, tiles and switches; programs of yours: FILE.py:NAME, FILE.ttir")


def _show(family: Family) -> None:
    """Print shape keys with what they are without --shape, tile sizes with their range, and switches."""
    given, tiles = DEFAULT_SHAPES.get(family.name, {}), DEFAULT_TILES.get(family.name, {})
    rows = [("--shape", "", "where there is no --shape")]
    for key, extent in family.shape.items():
        meaning = extent.meaning if extent.default is None else f"{extent.meaning} ({extent.default} unless given)"
        rows.append((f"  {key}", meaning, str(given.get(key, extent.default))))
    rows.append(("--tiles", "", "where there is no --shape" if tiles else "all candidates unless given"))
    for key, size in family.sizes.items():
        kind = "powers of two" if size.power_of_two else "numbers"
        rows.append((f"  {key}", f"{size.meaning}: {kind} from {size.least} to {size.most}", str(tiles.get(key, ""))))
    rows.append(("--dtype", " or ".join(DTYPES), f"{DTYPES[0]} unless given"))
    if family.options:
        rows.append(("--switches", "", "unless given"))
    for key, choices in family.options.items():
        rows.append((f"  {key}", ", ".join(_word(choice) for choice in choices), _word(choices[0])))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    sys.stdout.write(f"{family.name}: {family.summary}\n")
    for name, meaning, value in rows:
        sys.stdout.write(f"{name:<{widths[0]}}  {meaning:<{widths[1]}}  {value}".rstrip() + "\n")


def _word(value: str | int | bool) -> str:
    """Return a switch as `--switches` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(family: Family) -> dict[str, object]:
    given, tiles = DEFAULT_SHAPES.get(family.name, {}), DEFAULT_TILES.get(family.name, {})
    return {
        "name": family.name,
        "summary": family.summary,
        "shape": {
            key: {"meaning": extent.meaning, "unless_given": given.get(key, extent.default)}
            for key, extent in family.shape.items()
        },
        "tiles": {
            key: {
                "meaning": size.meaning,
                "least": size.least,
                "most": size.most,
                "power_of_two": size.power_of_two,
                "unless_given": tiles.get(key),
            }
            for key, size in family.sizes.items()
        },
        "dtypes": list(DTYPES),
        "switches": {key: list(values) for key, values in family.options.items()},
    }
