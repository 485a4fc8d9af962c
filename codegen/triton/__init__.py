"""Kernel plans as portable Triton: readable modules, and their compilation without a GPU."""
