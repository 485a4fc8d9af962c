"""Expert replication and placement on GPUs."""
