"""A token that begins to keep a part of each transfer just before a swap is mined (threat T30): no route pays less than its minimum."""

from __future__ import annotations

import pytest

from agent.localchain import LocalChain
from agent.model import Leg
from tests.support.constants import ETHER
from tests.support.markets.switched_fees import switch_on, switchable
from tests.support.signing import plan_of
from tests.support.wallets import AtomicDesk, Desk, R, router_balances

DESKS = {"swap_router_02": Desk, "rebalancer": AtomicDesk}


def hub(desk: Desk, first: str, sold: str, raw: int, second: str, between: str) -> list[Leg]:
    """Two legs through a hub."""
    into = desk.leg(first, sold, raw, sink=R)
    return [into, desk.leg(second, between, into.amount_out_raw, source=R)]


ROUTES = {
    "bought, V3": lambda desk: [desk.leg("v3 LINK/WETH 3000", "WETH", ETHER // 10)],
    "bought, V2": lambda desk: [desk.leg("v2 LINK/WETH", "WETH", ETHER // 10)],
    "bought twice, V3 and V2": lambda desk: [
        desk.leg("v3 LINK/WETH 3000", "WETH", ETHER // 10),
        desk.leg("v2 LINK/WETH", "WETH", ETHER // 10),
    ],
    "bought over a hub, V3": lambda desk: hub(desk, "v3 USDC/USDT 100", "USDT", 400 * 10**6, "v3 LINK/USDC 10000", "USDC"),
    "bought over a hub, V2": lambda desk: hub(desk, "v3 WETH/USDC 500", "USDC", 400 * 10**6, "v2 LINK/WETH", "WETH"),
    "sold, V3": lambda desk: [desk.leg("v3 LINK/WETH 3000", "LINK", 20 * ETHER)],
    "sold, V2": lambda desk: [desk.leg("v2 LINK/WETH", "LINK", 20 * ETHER)],
    "the hub itself, V3 then V3": lambda desk: hub(desk, "v3 LINK/WETH 3000", "WETH", ETHER // 10, "v3 LINK/USDC 10000", "LINK"),
    "the hub itself, V2 then V3": lambda desk: hub(desk, "v2 LINK/WETH", "WETH", ETHER // 10, "v3 LINK/USDC 10000", "LINK"),
    "the hub itself, V3 then V2": lambda desk: hub(desk, "v3 LINK/USDC 10000", "USDC", 400 * 10**6, "v2 LINK/WETH", "LINK"),
}


@pytest.mark.parametrize("router", DESKS)
def test_fee_switched_on_before_mining__reverts_on_every_route(anvil_chain: LocalChain, router: str) -> None:
    switchable(anvil_chain)
    for name, route in ROUTES.items():
        mark = anvil_chain.snapshot()
        desk = DESKS[router](anvil_chain)
        plan = plan_of(*route(desk))
        desk.approve_for(plan)
        assert desk.simulate(desk.swap_tx(plan)).ok, name
        before = desk.balances()
        switch_on(anvil_chain)
        assert desk.swap(plan, gas=1_000_000).status == 0, name
        assert desk.balances() == before, name
        anvil_chain.revert(mark)


@pytest.mark.parametrize("router", DESKS)
def test_fee_of_half_a_percent__fails_the_quoted_minimum(anvil_chain: LocalChain, router: str) -> None:
    """A minimum that is the quote itself is missed by any fee, however small."""
    switchable(anvil_chain)
    desk = DESKS[router](anvil_chain)
    plan = plan_of(*ROUTES["bought, V3"](desk))
    desk.approve_for(plan)
    switch_on(anvil_chain, fee_bps=1)
    assert desk.swap(plan, gas=1_000_000).status == 0


def test_fee_on_the_last_transfer__is_seen_by_the_rebalancer(chain: LocalChain) -> None:
    """SwapRouter02 has no check of the wallet's balance after a V3 leg; a V2 leg pays the wallet and is checked there."""
    switchable(chain)
    for router, name, payer, status in (
        ("swap_router_02", "bought, V3", chain.addresses.swap_router_02, 1),
        ("swap_router_02", "bought, V2", chain.address_by_pool["v2 LINK/WETH"], 0),
        ("rebalancer", "bought, V3", chain.address_by_pool["v3 LINK/WETH 3000"], 0),
        ("rebalancer", "bought, V2", chain.address_by_pool["v2 LINK/WETH"], 0),
    ):
        mark = chain.snapshot()
        desk = DESKS[router](chain)
        plan = plan_of(*ROUTES[name](desk))
        desk.approve_for(plan)
        switch_on(chain, payer=payer)
        assert desk.swap(plan, gas=1_000_000).status == status, (router, name)
        assert set(router_balances(desk).values()) == {0}
        chain.revert(mark)
