"""Whether a plan may be sent: every limit of the config is judged from the snapshot and evidence, never from the plan's own claims."""

from agent.guards.table import judge, require

__all__ = ["judge", "require"]
