"""Warp programs: what every warp group of a pipelined kernel does, instruction by instruction."""
