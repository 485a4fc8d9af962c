"""Packing pods onto nodes: grouped integer counts, bounds that need no search, neighbourhood search, CP-SAT."""
