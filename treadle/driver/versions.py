"""Versions that a plan records."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from treadle.ir.version import VERSION


def versions() -> dict[str, str]:
    """Return the versions of treadle and of the packages that shape its answers."""
    found = {"treadle": VERSION}
    for package in ("ortools", "pumpkin-solver", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
