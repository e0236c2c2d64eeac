"""Reads a simulated world as a chain is read: one bar is one Snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from agent.amm.errors import BeyondKnownTicks, Reverts
from agent.amm.pools import swap_exact_in
from agent.backtest.wanted import ROUTER, WALLET
from agent.backtest.world import World
from agent.model import (
    Allowance,
    CodeHash,
    Evidence,
    FeedRound,
    Head,
    Holding,
    PastPrices,
    Plan,
    ScreenedToken,
    SecondQuote,
    Snapshot,
    StepInput,
)
from agent.model.screening import Finding

OPERATORS = ("simulated",)


class ReplayReader:
    """ports.Reader over a world: pools and feeds at the prices of its bar, the wallet as its transactions left it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        world = self._world
        wallet, tokens = world.wallet, [token.address for token in world.tokens]
        return Snapshot(
            head=world.head(),
            now_s=world.now_s(),
            owner=WALLET,
            native_wei=wallet.native_wei,
            nonce_latest=wallet.nonce,
            nonce_pending=wallet.nonce + len(world.pending),
            priority_fee_wei=0,
            gas_price_wei=world.gas_wei,
            holdings=tuple(Holding(token, wallet.balances.get(token, 0)) for token in tokens),
            allowances=tuple(Allowance(token, ROUTER, wallet.allowances.get(token, 0)) for token in tokens),
            pools=tuple(world.pools.values()),
            feeds=world.feeds,
            code_hashes=tuple(CodeHash(address, code_hash(address)) for address in (ROUTER, *tokens, *world.pools)),
            quarantined=(),
            operators=OPERATORS,
            requests=0,
        )

    def deeper(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader: there is no more to read."""
        return snapshot

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader: the blocks just before lie within the same bar, so that prices of theirs are those of the bar.

        A feed's round is as old as in the bar, and at most as young as the block: one dated after its block would count for nothing.
        """
        world = self._world
        heads = (
            Head(head.chain_id, number, f"0x{number:064x}", head.timestamp_s - (head.number - number), head.base_fee_wei)
            for number in range(head.number - 1, head.number - 1 - blocks, -1)
        )
        pools = tuple(world.pools.values())
        return tuple(PastPrices(one, tuple(_by(feed, one.timestamp_s) for feed in world.feeds), pools) for one in heads)


class SimulatedEvidence:
    """ports.EvidenceSource of a world without an owner: nothing is paused, all code is pinned, every token moves as told.

    Second quotes are the pools' own, leg after leg.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """See ports.EvidenceSource."""
        tokens = dict.fromkeys(token for leg in plan.legs for token in (leg.token_in, leg.token_out))
        return Evidence(
            paused=False,
            pause_reason="",
            trusted=tuple((code.address, code.hash) for code in step.snapshot.code_hashes),
            second_quotes=self._quotes(plan),
            quorum=True,
            now_s=self._world.now_s(),
            screens=tuple(ScreenedToken(token, Finding.CLEAN) for token in tokens),
        )

    def _quotes(self, plan: Plan) -> tuple[SecondQuote, ...]:
        pools, found = dict(self._world.pools), []
        for number, leg in enumerate(plan.legs):
            try:
                swapped = swap_exact_in(pools[leg.pool], leg.token_in, leg.amount_in_raw)
            except (Reverts, BeyondKnownTicks) as error:
                found.append(SecondQuote(number, None, error.message))
                continue
            pools[leg.pool] = swapped.after
            found.append(SecondQuote(number, swapped.amount_out_raw))
        return tuple(found)


def _by(feed: FeedRound, at_s: int) -> FeedRound:
    """The round, dated no later than that."""
    return feed if feed.updated_at_s <= at_s else replace(feed, started_at_s=at_s, updated_at_s=at_s)


def code_hash(address: str) -> str:
    """What stands for the code at an address; it never changes."""
    return "0x" + hashlib.sha256(address.encode()).hexdigest()
