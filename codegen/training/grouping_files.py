"""The files of a sequence grouping: groups of every round, and the report."""

from __future__ import annotations

import csv
from io import StringIO

from treadle.codegen.svg import element, label, text
from treadle.codegen.training.page import levels_list, page, shown, table
from treadle.costmodels.training_grouping import bounds_us, group_us, rounds_us
from treadle.ir.plan import Plan
from treadle.ir.training.grouping import Group, GroupingBody

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#9d755d")
_WIDTH, _HEIGHT = 1000.0, 360.0


def groups_text(body: GroupingBody) -> str:
    """Return one row per group: round, first rank, size, numbers of the sequences from 0."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("round", "first_rank", "size", "sequences"))
    for place, groups in enumerate(body.rounds):
        for group in groups:
            writer.writerow((place, group.first, group.size, " ".join(map(str, group.sequences))))
    return out.getvalue()


def parse_groups(text_: str) -> tuple[tuple[Group, ...], ...]:
    """Return the rounds of a file; raises ValueError, KeyError for another format."""
    rounds: dict[int, list[Group]] = {}
    for row in csv.DictReader(StringIO(text_)):
        numbers = tuple(int(number) for number in row["sequences"].split())
        rounds.setdefault(int(row["round"]), []).append(Group(int(row["first_rank"]), int(row["size"]), numbers))
    return tuple(tuple(rounds[place]) for place in sorted(rounds))


def grouping_report(plan: Plan) -> bytes:
    """Return a self-contained page."""
    body: GroupingBody = plan.body
    problem, times = body.problem, rounds_us(body)
    rows = [
        (
            str(place),
            str(len(groups)),
            _sizes(groups),
            str(sum(len(group.sequences) for group in groups)),
            f"{us / 1e3:.1f}",
        )
        for place, (groups, us) in enumerate(zip(body.rounds, times, strict=True))
    ]
    figures = [(item.name.replace("_", " "), shown(item.value, item.unit)) for item in plan.predictions]
    limits = [(name, f"{value / 1e3:.1f} ms") for name, value in bounds_us(problem).items()]
    parts = [
        f"<p>{len(problem.lengths)} sequences, {sum(problem.lengths):,} tokens, longest {max(problem.lengths):,}, on "
        f"{problem.ranks} ranks of {problem.tokens_per_rank:,} tokens</p>",
        table(("figure", "value"), figures),
        "<h2>Proof</h2>" + levels_list(plan.certificates[0]) + table(("bound", "value"), limits),
        "<h2>Rounds</h2><p class=note>Ranks downwards, time to the right; colours are group sizes.</p>" + drawn(body),
        table(("round", "groups", "sizes", "sequences", "ms"), rows, text=(2,)),
    ]
    return page("Sequence groups", parts)


def _sizes(groups: tuple[Group, ...]) -> str:
    counts: dict[int, int] = {}
    for group in groups:
        counts[group.size] = counts.get(group.size, 0) + 1
    return " ".join(f"{count}x{size}" for size, count in sorted(counts.items(), reverse=True))


def drawn(body: GroupingBody) -> str:
    """Return the rounds as SVG: every group is a box over its ranks, as long as it runs."""
    problem, times = body.problem, rounds_us(body)
    across, down = _WIDTH / sum(times), _HEIGHT / problem.ranks
    parts: list[str] = [element("title", text("groups of every round"))]
    start = 0.0
    for groups, us in zip(body.rounds, times, strict=True):
        for group in groups:
            lengths = [problem.lengths[number] for number in group.sequences]
            took = group_us(problem, group.size, lengths)
            said = f"{group.size} ranks, {len(lengths)} sequences, {sum(lengths):,} tokens, {took / 1e3:.1f} ms"
            parts.append(
                element(
                    "rect", element("title", text(said)), x=start * across, y=group.first * down,
                    width=took * across, height=max(0.5, group.size * down - 0.4),
                    fill=_COLOURS[(group.size.bit_length() - 1) % len(_COLOURS)],
                )
            )  # fmt: skip
        start += us
        parts.append(element("line", x1=start * across, x2=start * across, y1=0, y2=_HEIGHT, class_="limit"))
    parts.append(label(4, _HEIGHT + 16, f"{start / 1e3:,.0f} ms in all", class_="note"))
    return element(
        "svg", *parts, view_box=f"0 0 {_WIDTH:g} {_HEIGHT + 24:g}", role="img", xmlns="http://www.w3.org/2000/svg"
    )
