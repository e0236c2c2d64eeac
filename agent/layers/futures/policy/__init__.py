"""Decisions of the futures layer: targets, triggers, reductions and hedges, all pure."""
