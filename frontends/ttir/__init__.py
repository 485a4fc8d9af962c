"""Triton kernels people have -> tile programs: the text of Triton's IR, its hot loop, and what its operations are."""
