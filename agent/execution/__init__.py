"""Carries transactions from intention to finality, through the journal, so that a crash neither loses nor repeats one."""

from agent.execution.executor import Executor
from agent.execution.settings import Event, Settings

__all__ = ["Event", "Executor", "Settings"]
