"""Benchmarks: one module per claim; each prints a table and writes JSON."""
