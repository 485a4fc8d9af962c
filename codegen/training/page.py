"""One HTML page for reports of training plans: head, style, tables, certificate levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from treadle.ir.certificate import Certificate, Level

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #1a1a1a;
  background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 1.8em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: 2px 12px 2px 0; text-align: right; vertical-align: top }
th { border-bottom: 1px solid #888; font-weight: 600 } td:first-child, th:first-child, .text { text-align: left }
.wide { overflow-x: auto } .note { color: #555 } .key { border-left: 1em solid; padding: 0 .6em 0 .3em }
svg { width: 100%; max-width: 1100px; height: auto; display: block } svg.lines { max-width: 760px }
svg text { font: 11px system-ui, sans-serif; fill: #555 } svg .rule { stroke: #e4e4e4 } circle { r: 1.2px }
svg .limit { stroke: #b00; stroke-dasharray: 5 3 } svg .line { fill: none; stroke-width: 1.6 }
.l0 { stroke: #4c78a8; border-color: #4c78a8 } .l1 { stroke: #f58518; border-color: #f58518 }
.l2 { stroke: #54a24b; border-color: #54a24b } .l3 { stroke: #b279a2; border-color: #b279a2 }
.l4 { stroke: #e45756; border-color: #e45756 } .l5 { stroke: #72b7b2; border-color: #72b7b2 }
.l6 { stroke: #9d755d; border-color: #9d755d } .l7 { stroke: #444444; border-color: #444444 }
.s0 { fill: #4c78a8 } .s1 { fill: #f58518 } .s2 { fill: #54a24b } .s3 { fill: #b279a2 }
"""


def page(title: str, parts: Sequence[str]) -> bytes:
    """Return a self-contained page."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
    return (head + f"<h1>{escape(title)}</h1>" + "".join(parts) + "</html>").encode()


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = ()) -> str:
    """Return a table; the first column and those in `text` are words, the others figures."""
    head = "".join(f"<th{' class=text' if place in text else ''}>{escape(name)}" for place, name in enumerate(header))
    lines: list[str] = []
    for row in rows:
        cells = (f"<td{' class=text' if place in text else ''}>{escape(cell)}" for place, cell in enumerate(row))
        lines.append("<tr>" + "".join(cells))
    return f"<div class=wide><table><tr>{head}{''.join(lines)}</table></div>"


def shown(value: float, unit: str) -> str:
    """Return a figure with its unit: microseconds and bytes in sizes people read, shares in percent."""
    if unit == "us":
        return f"{value / 1e6:,.4f} s"
    if unit == "B":
        return f"{value / 1e9:,.3f} GB"
    if unit == "1":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2%}"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:,.4g} {unit}"


def levels_list(certificate: Certificate) -> str:
    """Return the levels with value, bound, gap and kind of proof."""
    items = "".join(
        f"<li>{escape(level.name.replace('_', ' '))}: {escape(shown(level.value, level.unit))}, {level.status.value}"
        f", {escape(_bound(level))} [{level.proof.value}]</li>"
        for level in certificate.levels
    )
    return f"<ul>{items}</ul>"


def _bound(level: Level) -> str:
    if level.bound is None:
        return "no bound"
    return f"bound {shown(level.bound, level.unit)}, gap {level.gap or 0:.2%}"
