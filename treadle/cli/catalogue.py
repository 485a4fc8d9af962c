"""The catalogue of error and finding codes, made from the code: `python -m treadle.cli.catalogue > docs/errors.md`."""

from __future__ import annotations

import ast
import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path

import treadle
from treadle.ir.diagnostics import ExitCode, TreadleError, catalogue

_ROOMS = ("ir", "costmodels", "frontends", "solvers", "codegen", "driver", "verification", "cli")
_CHECKERS = ("ir", "costmodels", "verification")
_HUNDREDS = {
    "0": "General",
    "1": "Inputs",
    "2": "Machines and cost models",
    "3": "Requests that no plan meets",
    "4": "Findings of the checker",
    "5": "Kernels and generated files",
    "6": "Serving and training",
}
_FINDINGS = ("4", "6")
"""Hundreds in which checkers have codes."""
_EXITS = {ExitCode.UNMET: "1", ExitCode.USAGE: "2", ExitCode.LIMIT: "3", ExitCode.INTERNAL: "101", ExitCode.DONE: "0"}


def page() -> str:
    """Return the catalogue as a Markdown page."""
    _import_everything()
    errors = [
        error for error in catalogue() if error.code != TreadleError.code and error.__module__.startswith("treadle")
    ]
    lines = [
        "# Error and finding codes",
        "",
        "Made by `python -m treadle.cli.catalogue`; do not edit. An error stops a request and prints its code, the",
        "place, what was expected and what to do next. A finding is what `treadle verify` holds against a plan.",
    ]
    for digit, title in _HUNDREDS.items():
        mine = [error for error in errors if error.code[3] == digit]
        lines += ["", f"## TRD{digit}xx: {title.lower()}", ""]
        if digit in _FINDINGS:
            lines += _finding_lines(digit)
        if mine:
            lines += ["| code | situation | message | exit | next step |", "| --- | --- | --- | --- | --- |"]
            lines += [_row(error) for error in mine]
    return "\n".join(lines) + "\n"


def _row(error: type[TreadleError]) -> str:
    situation = (error.__doc__ or "").strip().splitlines()[0]
    cells = (error.code, situation, f"`{_plain(error.template)}`", _EXITS[error.exit_code], _plain(error.hint))
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return text.replace("`", "").replace("|", "\\|")


def _finding_lines(digit: str) -> list[str]:
    lines = ["| code | says | checked in |", "| --- | --- | --- |"]
    for code, (says, modules) in sorted(findings().items()):
        if code[3] != digit:
            continue
        lines.append(f"| {code} | {'; '.join(_plain(text) for text in says)} | {', '.join(modules)} |")
    return [*lines, ""]


def findings() -> dict[str, tuple[list[str], list[str]]]:
    """Return finding code -> (what its findings say, modules that raise it), read from the sources of the checkers."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    root = Path(treadle.__file__).parent
    for room in _CHECKERS:
        for path in sorted((root / room).resolve().rglob("*.py")):
            inside = path.relative_to((root / room).resolve()).with_suffix("").parts
            module = "treadle." + ".".join((room, *inside))
            for code, says in _codes(ast.parse(path.read_text(encoding="utf-8"))):
                texts, modules = found.setdefault(code, ([], []))
                said = " ".join(says.split())
                if said and said not in texts:
                    texts.append(said)
                if module not in modules:
                    modules.append(module)
    return found


def _codes(tree: ast.Module) -> list[tuple[str, str]]:
    """Return (code, message) of every finding, and (code, "") or what a docstring says of other `TRD4xx` constants."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            code = _finding_code(node.args[0]) if node.args else ""
            message = next((keyword.value for keyword in node.keywords if keyword.arg == "message"), None)
            if code:
                found.append((code, _literal(node.args[2] if len(node.args) > 2 else message)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "TRD4" in node.value:
            found += _SAID.findall(node.value) if len(node.value) > 6 else [(node.value, "")]
    return found


_SAID = re.compile(r"(TRD4\d\d):?\s+([^,.;`]+?)(?=[,.;`]|\n\n|$)")


def _finding_code(node: ast.AST) -> str:
    value = node.value if isinstance(node, ast.Constant) else None
    starts = tuple(f"TRD{digit}" for digit in _FINDINGS)
    return value if isinstance(value, str) and len(value) == 6 and value.startswith(starts) else ""


def _literal(node: ast.expr | None) -> str:
    """Return a string literal, with what is filled in shown as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "…" for part in node.values)
    return ""


def _import_everything() -> None:
    """Import every module of treadle that this installation can import, so that all error classes exist."""
    for room in _ROOMS:
        package = import_module(f"treadle.{room}")
        for found in pkgutil.walk_packages(package.__path__, f"treadle.{room}."):
            try:
                import_module(found.name)
            except ImportError as error:
                if (error.name or "").startswith("treadle"):
                    raise


if __name__ == "__main__":
    sys.stdout.write(page())
