"""Dumps of Kubernetes objects as clusters."""
