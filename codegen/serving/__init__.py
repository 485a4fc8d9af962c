"""Serving plans as engine configurations and Kubernetes manifests."""
