"""Transaction execution: from intent to finality through the journal, so that a crash neither loses
nor repeats a transaction.
"""

from agent.execution.executor import JournaledExecutor
from agent.execution.submission.events import SubmissionEvent
from agent.execution.submission.settings import SubmissionSettings

__all__ = ["JournaledExecutor", "SubmissionEvent", "SubmissionSettings"]
