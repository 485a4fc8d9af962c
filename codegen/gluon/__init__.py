"""Warp programs as Gluon kernels for Hopper and Blackwell: emitted one to one, compiled and checked without a GPU."""
