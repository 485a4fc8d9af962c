"""The report of a parallel plan: decision, stages with their memory, pipeline timeline, and why others lose."""

from __future__ import annotations

from html import escape

from treadle.costmodels.training_memory import capacity_bytes
from treadle.costmodels.training_replay import Event, replay
from treadle.costmodels.training_step import setting_of
from treadle.ir.certificate import Certificate
from treadle.ir.training.plan import ParallelBody

_WIDTH, _ROW = 1100, 14
_MOST_EVENTS = 6000
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:75em}"
    "td,th{padding:2px 10px;text-align:right}th{border-bottom:1px solid}"
)


def report(body: ParallelBody, certificate: Certificate) -> bytes:
    """Return a self-contained HTML page."""
    setting = setting_of(body.model, body.cluster, body.spec)
    played = replay(setting, body.degrees, body.layout, record=True)
    levels = "".join(
        f"<li>{escape(level.name)}: {level.value / 1e6:.4f} s, {level.status.value}"
        f", bound {(level.bound or 0) / 1e6:.4f} s, gap {level.gap or 0:.2%} [{level.proof.value}]</li>"
        for level in certificate.levels
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{escape(body.model.name)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(body.model.name)} on {body.degrees.gpus} x {escape(setting.gpu.id)}</h1>"
        f"<p>{escape(body.degrees.text())}: {played.step_us / 1e6:.4f} s a step</p><ul>{levels}</ul>"
        f"<h2>Stages</h2>{_stages(body, capacity_bytes(setting))}"
        f"<h2>One step</h2>{timeline(played.events, body.degrees.pipeline, played.step_us)}"
        f"<h2>Other plans</h2>{_others(body)}"
    )
    return page.encode()


def timeline(events: tuple[Event, ...], ranks: int, step_us: float) -> str:
    """Return the pipeline as SVG: one row per rank, forwards blue, backwards orange."""
    scale = _WIDTH / step_us
    boxes = "".join(
        f'<rect x="{event.start_us * scale:.1f}" y="{event.rank * _ROW}" '
        f'width="{max(0.3, (event.end_us - event.start_us) * scale):.1f}" height="{_ROW - 2}" '
        f'fill="{"#4c78a8" if event.forward else "#f58518"}"><title>rank {event.rank} chunk {event.chunk} '
        f"microbatch {event.microbatch}</title></rect>"
        for event in events[:_MOST_EVENTS]
    )
    cut = f"<p>first {_MOST_EVENTS} of {len(events)} events</p>" if len(events) > _MOST_EVENTS else ""
    return f'<svg width="{_WIDTH}" height="{ranks * _ROW}">{boxes}</svg>{cut}'


def _stages(body: ParallelBody, capacity: float) -> str:
    rows = "".join(
        f"<tr><td>{stage.rank}<td>{sum(body.layout.layers[stage.rank :: body.degrees.pipeline])}"
        f"<td>{stage.forward_us / 1e3:.2f}<td>{stage.backward_us / 1e3:.2f}<td>{stage.parameters / 1e9:.3f}"
        f"<td>{stage.state_bytes / 2**30:.1f}<td>{stage.activation_bytes / 2**30:.1f}"
        f"<td>{stage.transient_bytes / 2**30:.1f}<td>{stage.memory_bytes / capacity:.0%}"
        for stage in body.stages
    )
    head = [
        "rank",
        "layers",
        "forward_ms",
        "backward_ms",
        "parameters_G",
        "state_GiB",
        "activations_GiB",
        "transient_GiB",
        "of_allowed",
    ]
    return "<table><tr>" + "".join(f"<th>{name.replace('_', ' ')}" for name in head) + rows + "</table>"


def _others(body: ParallelBody) -> str:
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(item.degrees.text())}<td>{item.step_time_us / 1e6:.4f}"
        f"<td>{item.peak_memory_bytes / 2**30:.1f}<td style='text-align:left'>{escape(item.reason)}"
        for item in body.alternatives
    )
    return f"<table><tr><th>degrees<th>step s<th>peak GiB<th>why it loses{rows}</table>"
