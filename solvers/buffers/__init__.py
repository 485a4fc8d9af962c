"""Offsets of buffers with known lifetimes."""
