"""Contiguous cuts of layers into stages, by dynamic programming."""
