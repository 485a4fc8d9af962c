"""Plans to files: kernels, cubins, reports, timelines, manifests."""
