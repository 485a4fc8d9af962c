"""The report of a re-plan: what happened, what goes on, what moves, how often to save."""

from __future__ import annotations

from collections import Counter
from html import escape

from treadle.codegen.svg_lines import Chart, Mark, Series, lines_svg
from treadle.codegen.training.page import levels_list, page, shown, table
from treadle.codegen.training.replan_files import as_even
from treadle.costmodels.training_elastic import wasted_share
from treadle.ir.plan import Plan
from treadle.ir.training.elastic import CHECKPOINT, Checkpoints, Recovery, ReplanBody, Terms, node_size

_MOST_NODES = 24


def replan_report(plan: Plan) -> bytes:
    """Return a self-contained HTML page."""
    body: ReplanBody = plan.body
    figures = [(item.name.replace("_", " "), shown(item.value, item.unit)) for item in plan.predictions]
    parts = [
        f"<p>{escape(happened(body))}</p>",
        f"<p>before: {escape(body.before.degrees.text())}<br>now: {escape(body.degrees.text())}</p>",
        table(("figure", "value"), figures),
        "<h2>Proof</h2>" + levels_list(plan.certificates[0]),
        "<h2>What moves</h2>" + _moves(body),
        "<h2>Microbatches</h2>" + _counts(body),
        "<h2>Checkpoints</h2>" + _saving(body.checkpoints, body.terms),
    ]
    return page(
        f"{body.before.model.name}: {len(body.seats) * max(1, body.unit // node_size(body.before))} nodes go on", parts
    )


def happened(body: ReplanBody) -> str:
    """Return the event in words."""
    lost = f"lost nodes {', '.join(map(str, body.event.lost))}" if body.event.lost else ""
    slow = ", ".join(f"node {item.node} takes {item.factor:g} times as long" for item in body.event.slow)
    return "; ".join(filter(None, (lost, slow))) or "nothing happened"


def _moves(body: ReplanBody) -> str:
    if not body.transfers:
        return "<p>Nothing moves.</p>"
    sent: Counter[str] = Counter()
    received: Counter[str] = Counter()
    node, lanes = node_size(body.before), body.degrees.tensor
    for item in body.transfers:
        block, local = divmod(item.target, body.unit)
        source = "checkpoint" if item.source == CHECKPOINT else f"node {item.source // node}"
        sent[source] += item.lane_bytes * lanes
        received[f"node {(body.seats[block] * body.unit + local) // node}"] += item.lane_bytes * lanes
    names = sorted(set(sent) | set(received), key=lambda name: -sent[name] - received[name])
    rows = [(name, f"{sent[name] / 1e9:.3f}", f"{received[name] / 1e9:.3f}") for name in names[:_MOST_NODES]]
    more = f"<p>and {len(names) - _MOST_NODES} more</p>" if len(names) > _MOST_NODES else ""
    source = "ranks that still run" if body.recovery is Recovery.LIVE else "the last checkpoint"
    return f"<p>{len(body.transfers)} transfers from {source}.</p>" + table(("", "sends GB", "gets GB"), rows) + more


def _counts(body: ReplanBody) -> str:
    rows = [(f"{count}", f"{ranks}") for count, ranks in sorted(Counter(body.counts).items())]
    said = "trainer files are in <code>training/</code>" if as_even(body) else "uneven, see <code>note.txt</code>"
    return table(("microbatches", "data ranks"), rows) + f"<p>{said}</p>"


def _saving(saved: Checkpoints, terms: Terms) -> str:
    restart = terms.restart_us + saved.write_us
    points = [saved.interval_us * 2 ** (step / 4) for step in range(-12, 9)]
    series = tuple((at / 1e6, 100 * wasted_share(at, saved.write_us, restart, saved.mtbf_us)) for at in points)
    chart = Chart(
        "expected time without progress by checkpoint interval",
        "work between checkpoints (s)",
        "wasted (%)",
        (Series("wasted", series, 0),),
        (Mark(f"best: {saved.steps} steps", saved.interval_us / 1e6, vertical=True),),
    )
    said = (
        f"<p>Every {saved.steps} steps ({saved.interval_us / 1e6:.0f} s): {saved.wasted:.2%} of the time brings no "
        f"progress. A checkpoint takes {saved.write_us / 1e6:.1f} s; a failure comes every "
        f"{saved.mtbf_us / 3.6e9:.1f} h. Young: {saved.young_us / 1e6:.0f} s, Daly: {saved.daly_us / 1e6:.0f} s.</p>"
    )
    return said + lines_svg(chart, "checkpoints")
