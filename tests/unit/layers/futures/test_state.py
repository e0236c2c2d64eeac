"""Tests of agent/layers/futures/state.py: what a cycle has done."""

from __future__ import annotations

from agent.layers.futures.state import FuturesCycle


def test_cycle__actions_that_reverted_are_not_done() -> None:
    assert FuturesCycle(action_count=5, reverted_count=2).notes() == ["3 futures actions done"]
