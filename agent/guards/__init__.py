"""Guards: every limit of the config, judged from snapshot and evidence, never from the claims of a
plan.
"""

from agent.guards.table import FaultKind, ProposalFault, judge, judge_minimums, require_all_passed

__all__ = ["FaultKind", "ProposalFault", "judge", "judge_minimums", "require_all_passed"]
