"""Drawings of a migration: moves as arrows between nodes, and the waves as a timeline."""

from __future__ import annotations

from treadle.codegen.svg import element, label, text
from treadle.ir.cluster.cluster import PENDING, Amounts, usage
from treadle.ir.cluster.migration import Step, StepKind
from treadle.ir.cluster.packing import PackingBody

LEFT, WIDE = 190, 760
"""Where the bars of nodes begin, and how wide they are."""
_ROW = 30
_RIGHT = LEFT + WIDE + 2
_COLUMNS = 380
_STRIP = 60
_REACH = 140
_MOST_ARROWS = 150
_MOST_STEPS = 120
_FILLS = {StepKind.MOVE: "#4c78a8", StepKind.BIND: "#59a14f", StepKind.EVICT: "#e15759", StepKind.STOP: "#f28e2b"}


def colour(wave: int) -> str:
    """Return the colour of a wave (from 1)."""
    return f"hsl({(wave * 67 + 140) % 360} 65% 40%)"


def fullest_resource(capacity: Amounts, used: list[Amounts]) -> str:
    """Return the resource of which most is asked for, before or after."""
    shares = {name: max(amounts.get(name, 0) for amounts in used) / there for name, there in capacity.items() if there}
    return max(sorted(shares), key=lambda name: shares[name], default="cpu")


def overview(body: PackingBody) -> str:
    """Return two strips, now and planned: a column per node (or per few nodes, their mean) in its fullest resource."""
    cluster = body.cluster
    used = [usage(cluster, nodes) for nodes in (cluster.current, body.placement.nodes)]
    per_column = -(-len(cluster.nodes) // _COLUMNS)
    columns = -(-len(cluster.nodes) // per_column)
    width = WIDE / columns
    parts: list[str] = []
    for row, (name, amounts) in enumerate(zip(("now", "planned"), used, strict=True)):
        base = (row + 1) * (_STRIP + 8)
        parts += [label(0, base - 4, name), element("path", d=f"M{LEFT} {base} h{WIDE}", stroke="#999")]
        for column in range(columns):
            nodes = range(column * per_column, min(len(cluster.nodes), (column + 1) * per_column))
            shares = [_share(cluster.nodes[n].capacity, amounts[n]) for n in nodes]
            height = _STRIP * sum(shares) / len(shares)
            parts.append(
                element(
                    "rect", element("title", text(f"{cluster.nodes[nodes[0]].name}: {100 * shares[0]:.0f} %")),
                    x=LEFT + column * width, y=base - height, width=max(0.6, width - 0.3), height=height,
                    fill=("#9aa5b1", "#4c78a8")[row],
                )
            )  # fmt: skip
    drawing = element("svg", *parts, width=LEFT + WIDE + 10, height=2 * _STRIP + 26, role="img", aria_label="all nodes")
    each = "a column per node" if per_column == 1 else f"a column per {per_column} nodes, their mean"
    return f"{drawing}<p class='note'>All nodes, {each}: share of the node's fullest resource.</p>"


def _share(capacity: Amounts, used: Amounts) -> float:
    return min(1.0, max((used.get(name, 0) / there for name, there in capacity.items() if there), default=0.0))


def arrows(body: PackingBody, rows: dict[int, int]) -> str:
    """Return arrows for moves between nodes that are drawn; `rows` gives the row of a node."""
    moves = [
        (number, step)
        for number, wave in enumerate(body.migration.waves, start=1)
        for step in wave
        if step.kind is StepKind.MOVE and step.source in rows and step.target in rows
    ]
    drawn = [_arrow(body, number, step, rows) for number, step in moves[:_MOST_ARROWS]]
    if len(moves) > _MOST_ARROWS:
        drawn.append(label(_RIGHT + 6, 10, f"{_MOST_ARROWS} of {len(moves)} moves drawn"))
    return "".join(drawn)


def _arrow(body: PackingBody, wave: int, step: Step, rows: dict[int, int]) -> str:
    start, end = rows[step.source] * _ROW + 5, rows[step.target] * _ROW + 17
    reach = _RIGHT + min(_REACH, 18 + abs(end - start) / 4)
    path = f"M{_RIGHT} {start} C{reach:.0f} {start} {reach:.0f} {end} {_RIGHT + 6} {end}"
    told = f"wave {wave}: {body.cluster.pods[step.pod].name}, "
    told += f"{body.cluster.nodes[step.source].name} to {body.cluster.nodes[step.target].name}"
    ink = colour(wave)
    line = element("path", d=path, fill="none", stroke=ink, stroke_width=1.4, opacity=0.8)
    tip = element("path", d=f"M{_RIGHT} {end} l8 -4 v8 z", fill=ink)
    return element("g", element("title", text(told)), line, tip)


def timeline(body: PackingBody) -> str:
    """Return the waves as columns and the pods that take part as rows; empty when nothing moves."""
    waves = [[step for step in wave if step.kind in _FILLS] for wave in body.migration.waves]
    order = list(dict.fromkeys(step.pod for wave in waves for step in wave))
    if not order:
        return ""
    shown = {pod: row for row, pod in enumerate(order[:_MOST_STEPS])}
    width = max(46, min(160, 800 // max(1, len(waves))))
    parts = [label(210 + index * width, 12, f"wave {index + 1}", fill=colour(index + 1)) for index in range(len(waves))]
    parts += [label(0, 30 + 16 * row, body.cluster.pods[pod].name[:34]) for pod, row in shown.items()]
    for index, wave in enumerate(waves):
        parts += [
            _box(body, step, 210 + index * width, 19 + 16 * shown[step.pod], width)
            for step in wave
            if step.pod in shown
        ]
    height = 28 + 16 * len(shown)
    drawing = element(
        "svg", *parts, width=220 + width * len(waves), height=height, role="img", aria_label="steps of every wave"
    )
    more = f"{len(order) - len(shown)} more pods are in the table. " if len(order) > len(shown) else ""
    legend = "Blue: moves, green: starts, red: evicted, orange: stopped (an outage); paler: to a temporary place."
    return f"{drawing}<p class='note'>{more}{legend}</p>"


def _box(body: PackingBody, step: Step, x: float, y: float, width: float) -> str:
    ends = [body.cluster.nodes[n].name if n != PENDING else "-" for n in (step.source, step.target)]
    title = element("title", text(f"{step.kind.value}: {ends[0]} to {ends[1]}"))
    opacity = 0.5 if step.temporary else 0.9
    return element(
        "g", title, element("rect", x=x, y=y, width=width - 4, height=13, rx=3, fill=_FILLS[step.kind], opacity=opacity)
    )
