"""Layers: features that the core knows only by the registries of this package, one for each stage."""
