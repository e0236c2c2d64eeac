"""Transaction execution: from intent to finality through the journal, so that a crash neither loses nor repeats a transaction."""

from agent.execution.carrier import SubmissionEvent, SubmissionSettings
from agent.execution.executor import JournaledExecutor

__all__ = ["JournaledExecutor", "SubmissionEvent", "SubmissionSettings"]
