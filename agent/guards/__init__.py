"""Guards on a plan: every limit of the config, judged from the snapshot and evidence, never from
the plan's own claims.
"""

from agent.guards.table import judge, require

__all__ = ["judge", "require"]
