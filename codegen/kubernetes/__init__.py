"""Packing plans as Kubernetes objects and as a report."""
