"""Names of an emitted group: each must be made before it is read, where the compiler looks for it.

A value that a schedule leaves to another group than its frame expects would otherwise be a name that nothing made,
and the compiler's complaint about it.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence

UNROLLED = "static_range"
"""Loops whose bodies are written out: what they make outlives them, as nothing made in other loops does."""


def names_of_module(text: str) -> frozenset[str]:
    """Return the names that a module defines or imports, and Python's own."""
    found = set(dir(builtins))
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.add(statement.name)
        else:
            found |= _stored(statement)
    return frozenset(found)


def unmade(lines: Sequence[str], known: frozenset[str]) -> tuple[str, ...]:
    """Return the names that statements read before they make them, in the order in which they are read.

    Args:
        lines: the body of a function.
        known: its arguments and the names of its module.
    """
    missing: dict[str, None] = {}
    _walk(ast.parse("\n".join(lines)).body, set(known), missing)
    return tuple(missing)


def _walk(statements: Sequence[ast.stmt], known: set[str], missing: dict[str, None]) -> None:
    """Note names that are read unmade; `known` grows by what is made at this level."""
    for statement in statements:
        match statement:
            case ast.For():
                _reads(statement.iter, known, missing)
                inner = known | _stored(statement.target)
                _walk(statement.body, inner, missing)
                if UNROLLED in ast.unparse(statement.iter):
                    known |= inner
            case ast.While():
                _reads(statement.test, known, missing)
                _walk(statement.body, set(known), missing)
            case ast.If():
                _reads(statement.test, known, missing)
                then, otherwise = set(known), set(known)
                _walk(statement.body, then, missing)
                _walk(statement.orelse, otherwise, missing)
                known |= then & otherwise
            case ast.AugAssign():
                _reads(statement.value, known, missing)
                missing |= dict.fromkeys(sorted(_stored(statement.target) - known))
            case _:
                _reads(statement, known, missing)
                known |= _stored(statement)


def _reads(node: ast.AST, known: set[str], missing: dict[str, None]) -> None:
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)]
    for name in sorted(names, key=lambda name: (name.lineno, name.col_offset)):
        if name.id not in known:
            missing[name.id] = None


def _stored(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
