"""Programs people bring: Triton kernels and tile programs in files of their own."""
