"""What runs where the GPU is. Its modules import only the standard library, torch and triton, so that a prepared suite
runs where treadle is not installed.
"""
