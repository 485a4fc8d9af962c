"""Versions that a plan records."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from treadle import __version__


def versions() -> dict[str, str]:
    """Return the versions of treadle and of the packages that shape its answers."""
    found = {"treadle": __version__}
    for package in ("ortools", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
