"""Layers: features that the core knows only by the lists of this package, one for each stage."""
