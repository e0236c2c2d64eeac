"""Whose mean prices count: pinned V3 pools whose observations cover the whole window; and what would let another one count."""

from __future__ import annotations

from agent.model import StepInput, V3Pool

MOST_SLOTS = 65_535
"""What a pool can keep (uint16)."""
_SECONDS_PER_BLOCK = {1: 12, 10: 2, 137: 2, 8453: 2}
"""A pool writes at most one observation a block, and at most one a second. Chains that are not listed may write each second."""


def outside(step: StepInput, pool: V3Pool) -> str:
    """Why the pool's mean does not count, with the remedy; empty when it does."""
    unpinned = not_pinned(step, pool)
    if unpinned:
        return unpinned
    window_s = step.reference.twap_window_s
    if pool.twap_tick is not None and pool.twap_window_s is not None and pool.twap_window_s >= window_s:
        return ""
    return f"its oldest observation is younger than {window_s} s{_kept(step, pool)}"


def not_pinned(step: StepInput, pool: V3Pool) -> str:
    """Why the owner did not choose this pool; empty when he did. Where nothing says which pools count, every one does."""
    pins = step.reference.mean_pools
    if pins is None:
        return ""
    pinned = next((pin.hash for pin in pins if pin.address == pool.address), None)
    if pinned is None:
        return "it is not pinned: trimtab trust"
    found = next((code.hash for code in step.snapshot.code_hashes if code.address == pool.address), None)
    return "" if found == pinned else "its code is not the one that was pinned: find out why before trimtab trust"


def enough_slots(chain_id: int, window_s: int) -> int:
    """Observations that cover the window even if every block trades."""
    return min(MOST_SLOTS, -(-window_s // _SECONDS_PER_BLOCK.get(chain_id, 1)) + 1)


def _kept(step: StepInput, pool: V3Pool) -> str:
    if pool.observations is None:
        return ""
    kept, coming = pool.observations
    enough = enough_slots(step.snapshot.head.chain_id, step.reference.twap_window_s)
    if coming >= enough:
        return f", though it is to keep {coming}: they fill with its next trades"
    soon = f", soon {coming}" if coming > kept else ""
    return f", it keeps {kept}{soon}: trimtab oracle {pool.address} --to {enough}"
