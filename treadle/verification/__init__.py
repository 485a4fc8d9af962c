"""Checks plans without any solver: legality, recomputed figures, recomputed bounds, files."""
