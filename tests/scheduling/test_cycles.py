"""Longest paths and positive cycles against plain repetition on small graphs, and their cost on a long chain."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from treadle.ir.tile.cycles import Edge, longest_paths, positive_cycle

SIZE = 6
GRAPHS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.integers(-4, 3)), max_size=12)


def settled(edges: list[Edge]) -> list[int] | None:
    """Return longest-path values by raising them until nothing changes, or None if that never happens."""
    values = [0] * SIZE
    for _ in range(SIZE + 1):
        before = list(values)
        for source, target, weight in edges:
            values[target] = max(values[target], values[source] + weight)
        if values == before:
            return values
    return None


@given(GRAPHS)
def test_equal_to_repetition(edges: list[Edge]) -> None:
    expected = settled(edges)
    found = longest_paths(SIZE, edges)
    assert (found and found[0]) == expected
    cycle = positive_cycle(SIZE, edges)
    assert (cycle is None) == (expected is not None)
    if cycle:
        best = {(source, target): weight for source, target, weight in sorted(edges, key=lambda edge: edge[2])}
        assert sum(best[step] for step in pairwise([*cycle, cycle[0]])) > 0


def test_a_long_chain_takes_one_pass() -> None:
    count = 100_000
    chain = [(vertex, vertex + 1, 1) for vertex in reversed(range(count - 1))]
    assert positive_cycle(count, chain) is None
    assert len(positive_cycle(count, [*chain, (count - 1, 0, 1)]) or ()) == count
