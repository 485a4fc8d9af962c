"""Engine pools for a workload."""
