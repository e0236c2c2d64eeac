"""Looks through the wallet for liquidity of the wanted pairs that the store does not know: it would be provided a second time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from agent.chain.rpc import Transport
from agent.chain.strays import find_strays
from agent.model import History, StepInput


class Memory(Protocol):
    """The part of a store that remembers positions."""

    def positions_are_known(self) -> bool:
        """Whether the wallet was looked through."""
        ...

    def note_positions(self, names: Iterable[str], now_s: int) -> None:
        """Remembers positions that the owner has to decide on."""
        ...

    def history(self, chain_now_s: int) -> History:
        """With those that are undecided."""
        ...


def take_stock(step: StepInput, memory: Memory, line: Transport, manager: str | None) -> StepInput:
    """The step with the V3 positions of wanted pairs that the store does not know, once after it was new or adopted.

    A store restored from before a mint does not know it, and its target would mint once more. What strangers send later
    changes nothing (T11). Raises Retryable where the chain cannot be asked.
    """
    pairs = {(target.token0, target.token1) for target in step.portfolio.lp_targets if target.tick_spacing is not None}
    if manager is None or not pairs or memory.positions_are_known():
        return step
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    found = find_strays(line, step.snapshot.owner, manager, (), step.portfolio.positions, at).found
    memory.note_positions([one.name for one in found if one.liquidity > 0 and one.tokens in pairs], head.timestamp_s)
    return replace(step, history=replace(step.history, undecided=memory.history(head.timestamp_s).undecided))
