"""Overlap of operators on streams: bounds, CP-SAT model, levels."""
