"""Carries transactions from intention to finality, through the journal, so that a crash neither loses nor repeats one."""

from agent.execution.carrier import Event, Settings
from agent.execution.executor import Executor

__all__ = ["Event", "Executor", "Settings"]
