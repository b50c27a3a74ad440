"""Stacks: named sets of components, in ``stepops.yaml``."""
