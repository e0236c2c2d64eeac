"""An attacker with money and a delegate's key against whole steps on the contracts: gaps, pushes of the virtual pool, and positions
in a market that the config does not name, in a random order. Nobody is liquidated, nothing is opened within the cooldown of an
emergency or beside a strange position, and the leverage is above its limit for one tick, or while the pool is held beyond the bound.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.layers.futures.state import FuturesState
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model.futures import PerpOrder, PerpOrderKind
from agent.venues import perpetual_protocol as venue
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_faults import LONG, MARGIN_USD, MOST, perps, push_pool, size
from tests.support.perps import WAD, advance_time, contracts_of, read_now, send_data

__all__ = ["perps"]
TICKS = 22
TICK_PAST_COOLDOWN = 18
"""The tick before which the cooldown of an earlier emergency ends."""
COOLDOWN_S = 86_400
SLIPPAGE = Fraction(2, 100)
GAPS = (-28, -22, -8, 8, 18, 28)
PUSHES = (-9, -5, -2, 2, 5, 9, 0)
THEFTS = (-3, 3, 6)
"""Percent of the price, percent off the index, and tenths of the margin."""
THEFT = "theft"
EMERGENCY = "emergency"
OPENING = "opening"
LATE_OPENING = "opening past the cooldown of an emergency"
HAPPENS = {1: {THEFT, OPENING}, 2: {THEFT, EMERGENCY}, 4: {THEFT, EMERGENCY, OPENING, LATE_OPENING}}
"""What surely happens with a seed: without it the test would ask nothing."""
LIMITS = {"emergency_distance": "10%", "emergency_slippage": "10%", "max_reduction_per_day": "50%", "max_top_up_per_day": "5%"}


@dataclass
class Attacker:
    """Acts once per tick; the delegate's key is used once, after the book is open."""

    perps: LocalPerps
    chance: random.Random
    key: str
    has_stolen: bool = False

    def act(self) -> str:
        doing = self.chance.choice(["gap", "gap", "gap", "push", "push", "calm", "calm", "steal"])
        if doing == "gap":
            self.gap(Fraction(self.chance.choice(GAPS), 100))
        elif doing == "push":
            push_pool(self.perps, "WETH", Fraction(self.chance.choice(PUSHES), 100))
        elif doing == "steal" and not self.has_stolen:
            self.has_stolen = True
            self.steal(Fraction(self.chance.choice(THEFTS), 10))
        advance_time(self.perps, self.chance.choice([60, 1_900, 3_600]))
        self.perps.chain.refresh_feeds()
        return doing

    def gap(self, share: Fraction) -> None:
        chain = self.perps.chain
        price = chain.deployed_world.prices_usd["WETH"] * (1 + share)
        if not 1_300 < price < 6_000:  # the makers' range
            return
        chain.move_market({"WETH": price}, twap_follows=False)
        chain.node.mine_at(chain.now_s() + 15)
        self.perps.set_index("WETH", price)
        self.perps.move_pools({"WETH": price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds)))

    def steal(self, multiple: Fraction) -> None:
        chain = self.perps.chain
        base = self.perps.markets["WBTC"].base_token
        raw = int(multiple * MARGIN_USD / chain.deployed_world.prices_usd["WBTC"] * WAD)
        order = PerpOrder(base, raw, PerpOrderKind.MARKET, 10**30 if raw > 0 else 1, is_reduce_only=False)
        data = venue.encode_order(order, contracts_of(self.perps, chain.wallet.address), self.key, chain.now_s() + 10_000)
        send_data(self.perps, self.perps.addresses.clearing_house, data, self.key)
        self.perps.trade(chain.whale.address, "WBTC", -raw)


def ticks(attacker: Attacker, agent: Agent) -> Iterator[tuple[int, int, int | None, str]]:
    """Size before and after each step, the newest emergency before it, and what happened."""
    perps = attacker.perps
    chain = attacker.perps.chain
    for tick in range(TICKS):
        if tick == TICK_PAST_COOLDOWN:
            advance_time(perps, COOLDOWN_S)
            chain.refresh_feeds()
        doing = attacker.act()
        before = size(perps, "WETH")
        emergency_s = agent.context.store.budgets.history(chain.now_s()).layer(FuturesState).last_emergency_s
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        yield before, size(perps, "WETH"), emergency_s, f"{tick} {doing}: {outcome.kind.value} {outcome.reason}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 25))
def test_besieged_book__is_not_liquidated_or_reopened(perps: LocalPerps, tmp_path: Path, seed: int) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    base = perps.markets["WETH"].base_token
    attacker = Attacker(perps, random.Random(seed), chain.accounts[3].address)
    send_data(perps, perps.addresses.delegate_approval, venue.encode_delegate(attacker.key, is_allowed=True), wallet)
    changes = futures_config_changes(perps, LONG, "2.8x", **LIMITS)
    changes["futures"] = {**changes["futures"], "leverage_band": "10%"}  # type: ignore[dict-item]  # a table
    above = 0
    log = []
    events = set()
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes)
        assert size(perps, "WETH") > 0
        for before, after, emergency_s, outcome in ticks(attacker, agent):
            account = read_now(perps, wallet)
            log.append(outcome)
            events |= {THEFT} if attacker.has_stolen else set()
            events |= {EMERGENCY} if emergency_s is not None else set()
            assert not margin.is_liquidatable(account), log
            if after > before:
                events |= {OPENING} if emergency_s is None else {OPENING, LATE_OPENING}
                assert size(perps, "WBTC") == 0, log
                assert emergency_s is None or chain.now_s() - emergency_s >= COOLDOWN_S, log
            leverage = margin.leverage(account)
            market = account.market(base)
            is_fillable = abs(market.mark / market.index - 1) < SLIPPAGE
            above = above + 1 if is_fillable and (leverage is None or leverage > MOST) else 0
            assert above <= 1, log
    assert HAPPENS.get(seed, set()) <= events, log
