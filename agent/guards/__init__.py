"""Guards: every limit of the config, judged from snapshot and evidence, never from the claims of a
plan.
"""

from agent.guards.table import judge, require

__all__ = ["judge", "require"]
