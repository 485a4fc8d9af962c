"""Least time of a step at given capacities: moves, reruns and homes of its buffers."""
