"""Least time over all cuts of a task graph into sections."""
