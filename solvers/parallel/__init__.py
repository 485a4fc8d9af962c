"""The cut of a model over a cluster: enumeration of degrees with admissible bounds."""
