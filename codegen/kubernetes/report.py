"""The report of a packing: nodes as stacked bars before and after, moves, and the waves, in one HTML file."""

from __future__ import annotations

from html import escape

from treadle.codegen.kubernetes.drawings import LEFT, WIDE, arrows, fullest_resource, overview, timeline
from treadle.ir.certificate import Certificate
from treadle.ir.cluster.cluster import PENDING, usage
from treadle.ir.cluster.migration import StepKind
from treadle.ir.cluster.packing import PackingBody

_MAX_NODES = 64
_NAME = 32
_STYLE = """body{font:14px system-ui,sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child,.steps td,.steps th{text-align:left}
svg text{font-size:10px}.moved{stroke:#c00;stroke-width:1.5}.note{color:#555}"""


def report(body: PackingBody, certificate: Certificate) -> bytes:
    """Return the report as a self-contained HTML document."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Packing plan</title>",
        f"<style>{_STYLE}</style><h1>Packing plan</h1>",
        _summary(body),
        _levels(certificate),
        _remarks(body),
        "<h2>Nodes, before and after</h2>",
        overview(body) if len(body.cluster.nodes) > _MAX_NODES else "",
        _bars(body),
        "<h2>Waves</h2>",
        timeline(body),
        _waves(body),
        "</html>",
    ]
    return "\n".join(parts).encode()


def _summary(body: PackingBody) -> str:
    cluster = body.cluster
    before, after = (sum(node != PENDING for node in nodes) for nodes in (cluster.current, body.placement.nodes))
    text = f"{len(cluster.nodes):,} nodes, {len(cluster.pods):,} pods: {before:,} run now, {after:,} run in the plan"
    waiting = len(cluster.pods) - after
    more = f"; {waiting:,} wait: <code>treadle explain</code> says why" if waiting else ""
    return f"<p>{text}{more}.</p>"


def _remarks(body: PackingBody) -> str:
    """What the input says that the plan does not honour."""
    if not body.cluster.remarks:
        return ""
    rows = "".join(f"<li>{escape(remark)}" for remark in body.cluster.remarks)
    return f"<h2>Beside the plan</h2><ul class='note'>{rows}</ul>"


def _levels(certificate: Certificate) -> str:
    rows = "".join(
        f"<tr><td>{escape(level.name)}<td>{level.value:g}<td>{escape(level.unit)}<td>{level.bound}"
        f"<td>{level.status.value}<td>{level.proof.value}"
        for level in certificate.levels
    )
    return f"<table><tr><th>level<th>value<th>unit<th>bound<th>status<th>proof{rows}</table>"


def _bars(body: PackingBody) -> str:
    """One pair of bars per node that changes (all nodes of a small cluster), in the node's fullest resource."""
    cluster = body.cluster
    used = [usage(cluster, nodes) for nodes in (cluster.current, body.placement.nodes)]
    changed = {n for pod, n in zip(cluster.pods, body.placement.nodes, strict=True) if n not in (PENDING, pod.node)}
    changed |= {
        pod.node for pod, n in zip(cluster.pods, body.placement.nodes, strict=True) if pod.node not in (PENDING, n)
    }
    small = len(cluster.nodes) <= _MAX_NODES
    shown = list(range(len(cluster.nodes))) if small else sorted(changed)[:_MAX_NODES]
    height = 30 * len(shown) + 10
    drawn = [f"<svg width='1150' height='{height}' role='img' aria-label='requests per node, before and after'>"]
    for row, node in enumerate(shown):
        y = 30 * row
        fullest = fullest_resource(cluster.nodes[node].capacity, [amounts[node] for amounts in used])
        drawn.append(f"<text x='0' y='{y + 9}'>{escape(_short(cluster.nodes[node].name))}</text>")
        drawn.append(f"<text x='0' y='{y + 21}' fill='#777'>{escape(_short(fullest))}</text>")
        drawn += _bar(body, node, cluster.current, y, 10, fullest)
        drawn += _bar(body, node, body.placement.nodes, y + 12, 12, fullest)
    drawn.append(arrows(body, {node: row for row, node in enumerate(shown)}))
    note = "" if small else f"<p class='note'>{len(shown)} of {len(changed)} changed nodes of {len(cluster.nodes)}.</p>"
    legend = "Share of the node's fullest resource. Upper bar: now; lower: planned; outlined: arrives. "
    legend += "Arrows: moves, coloured by wave."
    return f"{''.join(drawn)}</svg><p class='note'>{legend}</p>{note}"


def _short(name: str) -> str:
    """Return a name that fits beside the bars: its beginning and its end."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 9]}…{name[-8:]}"


def _bar(body: PackingBody, node: int, nodes: tuple[int, ...], y: int, height: int, resource: str) -> list[str]:
    cluster, capacity, x = body.cluster, body.cluster.nodes[node].capacity, float(LEFT)
    drawn = [f"<rect x='{LEFT}' y='{y}' width='{WIDE}' height='{height - 1}' fill='#eee'/>"]
    for pod, at in zip(cluster.pods, nodes, strict=True):
        if at != node:
            continue
        requests = cluster.shapes[pod.shape].requests
        share = requests.get(resource, 0) / (capacity.get(resource) or 1)
        arrives = " class='moved'" if pod.node != node else ""
        title = f"<title>{escape(pod.name)}: {100 * share:.0f} % of {escape(resource)}</title>"
        width = min(WIDE * share, LEFT + WIDE - x)
        fill = f"hsl({pod.shape * 47 % 360} 55% 65%)"
        box = f"x='{x:.1f}' y='{y}' width='{max(0.5, width):.1f}' height='{height - 1}' fill='{fill}'"
        drawn.append(f"<rect{arrives} {box}>{title}</rect>")
        x = min(LEFT + WIDE - 1.0, x + width)
    return drawn


def _waves(body: PackingBody) -> str:
    cluster = body.cluster
    rows: list[str] = []
    for number, wave in enumerate(body.migration.waves, start=1):
        for step in wave:
            if step.kind in (StepKind.CORDON, StepKind.UNCORDON):
                continue
            ends = [cluster.nodes[n].name if n != PENDING else "-" for n in (step.source, step.target)]
            temporary = " (temporary)" if step.temporary else ""
            name = escape(cluster.pods[step.pod].name)
            rows.append(
                f"<tr><td>{number}<td>{step.kind.value}{temporary}<td>{name}<td>{escape(ends[0])}<td>{escape(ends[1])}"
            )
    if not rows:
        return "<p>Nothing moves.</p>"
    return f"{_outages(body)}<table class='steps'><tr><th>wave<th>step<th>pod<th>from<th>to{''.join(rows)}</table>"


def _outages(body: PackingBody) -> str:
    """Name the pods that are without a place for a while, restarts before a replacement included."""
    steps, cluster = body.migration, body.cluster
    if not steps.outages:
        return "<p>No outages: every pod that moves is replaced before it goes.</p>"
    named = [f"{cluster.pods[p].name} (priority {cluster.priority(p)})" for p in steps.outages[:_MAX_NODES]]
    more = f" and {len(steps.outages) - _MAX_NODES} more" if len(steps.outages) > _MAX_NODES else ""
    return f"<p>Outages, price {steps.outage_price}: {escape(', '.join(named))}{more}.</p>"
