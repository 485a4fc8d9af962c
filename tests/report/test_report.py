"""The page of a plan: complete, escaped, self-contained, the same every time; and in a browser without errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.sample import CLEAN, HOSTILE, KERNEL, LOOP, OBJECTED, PLAN, SCHEDULE
from treadle.codegen.report import render
from treadle.codegen.report.kernels import memory_parts, unit_shares
from treadle.codegen.report.words import bytes_text, evidence_in_words, figure
from treadle.ir.plan import Plan
from treadle.ir.tile.schedule import check

SOURCES = {"flash": "def launch():\n    return '<b>'\n"}
VOID = {"meta", "line", "rect", "path", "circle", "polyline", "br", "input"}


class Outline(HTMLParser):
    """Checks that tags close in order; collects ids, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Self-closed: nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)


def outline(page: str) -> Outline:
    read = Outline()
    read.feed(page)
    read.close()
    assert read.open == []
    return read


def test_the_sample_is_legal() -> None:
    assert check(LOOP, SCHEDULE) == []


def test_page_is_well_formed_and_complete() -> None:
    read = outline(render(PLAN, SOURCES, CLEAN))
    text = " ".join(" ".join(read.words).split())
    for wanted in (
        PLAN.id, "Demonstration GPU", "Nothing found.", "41 claims", "flash", "512", "2,380", "12.50", "480", "61 %",
        "168", "96 KiB", "tensor_core works 512 cycles for every iteration", "CP-SAT 9.15", "load → scores",
        "keys × 5 160 KiB", "def launch()", "gap 10.9 %", "5 of 5 slots",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert len(set(read.ids)) == len(read.ids)
    assert {link[1:] for link in read.links} <= set(read.ids)


def test_page_needs_nothing_else() -> None:
    page = render(PLAN, SOURCES, CLEAN)
    outside = [url for url in re.findall(r"(?:https?:)?//[^\s\"'<>)]+", page) if "www.w3.org/2000/svg" not in url]
    assert not [url for url in outside if not url.startswith("// A link")]
    assert "@import" not in page
    assert "url(" not in page


def test_page_escapes_what_plans_say() -> None:
    page = render(PLAN, SOURCES, CLEAN)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "'&lt;b&gt;'" in page or "&lt;b&gt;" in page


def test_page_is_the_same_every_time() -> None:
    assert render(PLAN, SOURCES, CLEAN) == render(PLAN, SOURCES, CLEAN)


def test_findings_come_first() -> None:
    page = render(PLAN, SOURCES, OBJECTED)
    assert "TRD403" in page
    assert "This plan does not hold" in page
    assert page.index("This plan does not hold") < page.index('id="kernels"')


def test_kinds_without_sections_of_their_own() -> None:
    plan = Plan("packing", (), {}, {"treadle": "0.1.0"}, {"anything": 1}, (KERNEL.certificate,)).sealed()
    text = " ".join(outline(render(plan, {}, CLEAN)).words)
    assert "packing plan" in text
    assert "modulo/flash" in text


def test_many_stages() -> None:
    starts = {**SCHEDULE.start_cycles, HOSTILE: 2080 + 20 * 512}
    late = replace(SCHEDULE, start_cycles=starts, length_cycles=2380 + 20 * 512, ring_depths={"keys": 25})
    body = replace(PLAN.body, kernels=(replace(KERNEL, schedule=late),))
    page = render(replace(PLAN, body=body).sealed(), SOURCES, CLEAN)
    assert len(page) < 200_000
    outline(page)


def test_unit_shares_and_memory() -> None:
    shares = {share.name: share for share in unit_shares(KERNEL)}
    assert (shares["tensor_core"].share, shares["mufu"].busy_cycles, shares["dma"].share) == (1.0, 700, None)
    assert shares["mufu"].share == 700 / 1024
    parts = memory_parts(KERNEL, "shared")
    assert [part.size_bytes for part in parts] == [1024, 5 * 32768, 232448 - 1024 - 5 * 32768]


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0, "0"), (1234567, "1,234,567"), (12.345, "12.35"), (0.000123456, "0.0001235")]
)
def test_figures(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_words() -> None:
    assert bytes_text(98304) == "96 KiB"
    assert bytes_text(12) == "12 B"
    odd = replace(KERNEL.certificate.levels[0], evidence={"unexpected": [1, 2]})
    assert evidence_in_words(odd) == "unexpected [1, 2]"


def browser() -> str | None:
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome found")
def test_in_a_browser(tmp_path: Path) -> None:
    """The page opens without script errors, and what it must show is there as laid-out text."""
    page = tmp_path / "report.html"
    probe = (
        "<script>addEventListener('load', () => { const box = document.querySelector('svg.timeline .s0')"
        ".getBoundingClientRect(); document.body.dataset.drawn = String(box.width > 5 && box.height > 5); });"
        "addEventListener('error', event => { document.body.dataset.failed = event.message; });</script>"
    )
    page.write_text(render(PLAN, SOURCES, CLEAN).replace("<header>", probe + "<header>"), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}")  # fmt: skip
    done = subprocess.run(
        [browser() or "", *options, "--dump-dom", f"{page.as_uri()}#k-flash"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert 'data-drawn="true"' in done.stdout
    assert "data-failed" not in done.stdout
    assert "Nothing found." in done.stdout
