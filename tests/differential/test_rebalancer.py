"""Rebalancer trades in real pools of every kind, to the wei, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import pytest
from eth_utils.crypto import keccak

from agent.artifacts import npm_artifact, own_artifact
from agent.signing.deployment_rules import encode_deployment
from agent.units import NATIVE
from agent.venues import deployment
from tests.support.constants import ETHER
from tests.support.programs import Flow, Program, Row, RowKind
from tests.support.rebalancer import RebalancerAttack
from tests.support.samples import slow
from tests.support.venues import CONCENTRATED, POOL_MANAGER, V4_QUOTER, Venue, VenuePool, Venues

HERE = Flow.HERE
PAIR = Flow.PAIR
SOME_PAIRS = [(Venue.V4, Venue.V4), *pairwise((*Venue, next(iter(Venue))))]
"""Each kind as the first and as the second of two; a manager of V4 is unlocked once for both."""


def test_the_deployer_gives_the_predicted_address_and_code(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    eth = venues.chain.w3.eth
    code = eth.get_code(stall.rebalancer)
    assert "0x" + keccak(code).hex() == deployment.rebalancer_code_hash()
    assert 0 < len(code) < 24_576
    assert encode_deployment(deployment.rebalancer_init_code()) == "0x" + bytes(32).hex() + own_artifact("Rebalancer").bytecode[2:]


def test_it_has_no_owner_no_views_and_no_storage(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    abi = own_artifact("Rebalancer").abi
    assert not [entry for entry in abi if entry.get("stateMutability") in ("view", "pure") or entry["type"] == "constructor"]
    functions = {entry["name"] for entry in abi if entry["type"] == "function"}
    assert functions == {"rebalance", "uniswapV3SwapCallback", "pancakeV3SwapCallback", "unlockCallback"}
    stall.send(stall.program(stall.leg(stall.pool(Venue.V4, "WETH", "USDC"), stall.at("WETH"))))
    answer = venues.chain.node.ask([("eth_getStorageAt", [stall.rebalancer, hex(slot), "latest"]) for slot in range(4)])
    assert [int(str(word), 16) for word in answer] == [0, 0, 0, 0]


@pytest.mark.parametrize("sold", ["WETH", "USDT"])
@pytest.mark.parametrize("venue", list(Venue))
def test_a_swap_gives_what_the_pool_quotes_to_the_wei(venues: Venues, venue: Venue, sold: str) -> None:
    """USDT returns nothing from its functions."""
    stall = RebalancerAttack(venues)
    pool = stall.pool(venue, "WETH", "USDT")
    leg = stall.leg(pool, stall.at(sold))
    too_much = replace(leg, min_out_raw=leg.min_out_raw + 1)
    assert stall.would(stall.program(too_much)) == "TooLittleOut(1)"
    changes = stall.send(stall.program(leg))
    assert changes == {sold: -leg.amount_raw, stall.symbol(leg.token_out): leg.min_out_raw}
    assert not any(stall.loot().values())


def test_all_kinds_trade_in_one_program(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    legs = [stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH")) for venue in Venue]
    changes = stall.send(stall.program(*legs))
    assert changes == {"WETH": -sum(leg.amount_raw for leg in legs), "USDC": sum(leg.min_out_raw for leg in legs)}


def hub(stall: RebalancerAttack, first: VenuePool, second: VenuePool, **changes: Flow) -> tuple[Program, int, int]:
    """WETH to USDC in the first pool and all of it to LINK in the second; the amounts sold and bought."""
    leg = stall.leg(first, stall.at("WETH"), **{"sink": HERE} | changes)
    out = stall.venues.quote(second, stall.at("USDC"), leg.min_out_raw)
    if changes:
        leg = replace(leg, next_token=stall.at("LINK"), next_row=second.row)
    follows = second.leg(stall.at("USDC"), 0, out, source=changes.get("sink", HERE))
    return stall.program(leg, follows), leg.amount_raw, out


@pytest.mark.parametrize(("first", "second"), [*SOME_PAIRS, *slow(pair for pair in product(Venue, repeat=2) if pair not in SOME_PAIRS)])
def test_a_hub_token_goes_from_any_kind_to_any_kind(venues: Venues, first: Venue, second: Venue) -> None:
    stall = RebalancerAttack(venues)
    program, sold, bought = hub(stall, stall.pool(first, "WETH", "USDC"), stall.pool(second, "USDC", "LINK"))
    assert stall.send(program) == {"WETH": -sold, "LINK": bought}
    assert not any(stall.loot().values())


@pytest.mark.parametrize("first", [venue for venue in Venue if venue is not Venue.V4])
def test_an_output_goes_straight_into_the_next_pair(venues: Venues, first: Venue) -> None:
    stall = RebalancerAttack(venues)
    program, sold, bought = hub(stall, stall.pool(first, "WETH", "USDC"), stall.pool(Venue.V2, "USDC", "LINK"), sink=PAIR)
    assert stall.send(program) == {"WETH": -sold, "LINK": bought}


def test_v4_adds_its_credit_to_what_lies_here(venues: Venues) -> None:
    """USDC comes from V3 and, in the same unlocking, from V4; one V4 leg sells all of it."""
    stall = RebalancerAttack(venues)
    weth = stall.at("WETH")
    usdc = stall.at("USDC")
    before = stall.leg(stall.pool(Venue.V3, "WETH", "USDC"), weth, sink=HERE)
    within = stall.leg(stall.pool(Venue.V4, "WETH", "USDC"), weth, sink=HERE)
    link = stall.pool(Venue.V4, "USDC", "LINK")
    out = venues.quote(link, usdc, before.min_out_raw + within.min_out_raw)
    changes = stall.send(stall.program(before, within, link.leg(usdc, 0, out, source=HERE)))
    assert changes == {"WETH": -before.amount_raw - within.amount_raw, "LINK": out}
    assert not any(stall.loot().values())


def test_pools_of_two_managers_are_unlocked_one_after_the_other(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    chain = venues.chain
    first = stall.pool(Venue.V4, "WETH", "USDC")
    manager = chain.deploy(npm_artifact(POOL_MANAGER), chain.whale.address)
    stall.venues = replace(
        venues,
        rows={Venue.V4: Row(RowKind.POOL_V4, manager)},
        manager=chain.contract(manager, npm_artifact(POOL_MANAGER)),
        quoter=chain.contract(chain.deploy(npm_artifact(V4_QUOTER), manager), npm_artifact(V4_QUOTER)),
    )
    second = stall.pool(Venue.V4, "USDC", "LINK")
    sold = venues.quote(first, stall.at("WETH"), ETHER)
    out = stall.venues.quote(second, stall.at("USDC"), sold)
    feeds = first.leg(stall.at("WETH"), ETHER, sold, sink=HERE)
    assert stall.send(stall.program(feeds, second.leg(stall.at("USDC"), 0, out, source=HERE))) == {"WETH": -ETHER, "LINK": out}


def test_native_coin_trades_in_v4_as_itself(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    pool = stall.pool(Venue.V4, "ETH", "USDC")
    usdc = stall.at("USDC")
    sold = stall.leg(pool, NATIVE)
    assert stall.send(stall.program(sold)) == {"ETH": -sold.amount_raw, "USDC": sold.min_out_raw}
    bought = stall.leg(pool, usdc)
    assert stall.send(stall.program(bought)) == {"ETH": bought.min_out_raw, "USDC": -bought.amount_raw}
    assert not any(stall.loot().values())


def test_coin_is_wrapped_and_unwrapped_between_pools(venues: Venues) -> None:
    """WETH is unwrapped for a native pool; what a native pool pays is wrapped for a pool of WETH."""
    stall = RebalancerAttack(venues)
    weth, usdc, usdt = (stall.at(symbol) for symbol in ("WETH", "USDC", "USDT"))
    native = stall.pool(Venue.V4, "ETH", "USDC")
    v3 = stall.pool(Venue.V3, "WETH", "USDT", tier=(500, 10))
    coin = stall.raw(weth, 300)
    unwrap = replace(stall.leg(native, NATIVE, coin), row=stall.wrapped, token_in=weth, token_out=NATIVE, min_out_raw=coin, sink=HERE)
    sell = native.leg(NATIVE, 0, venues.quote(native, NATIVE, coin), source=HERE)
    assert stall.send(stall.program(unwrap, sell)) == {"WETH": -coin, "USDC": sell.min_out_raw}
    buy = stall.leg(native, usdc, sink=HERE)
    wrap = replace(unwrap, token_in=NATIVE, token_out=weth, amount_raw=0, min_out_raw=buy.min_out_raw, source=HERE)
    out = venues.quote(v3, weth, buy.min_out_raw)
    changes = stall.send(stall.program(buy, wrap, v3.leg(weth, 0, out, source=HERE)))
    assert changes == {"USDC": -buy.amount_raw, stall.symbol(usdt): out}
    assert not any(stall.loot().values())


def test_wrapped_coin_goes_to_the_wallet_and_back(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    weth = stall.at("WETH")
    wrap = replace(stall.leg(stall.pool(Venue.V2, "WETH", "USDC"), weth, ETHER), row=stall.wrapped, token_in=NATIVE, token_out=weth)
    wrap = replace(wrap, min_out_raw=ETHER)
    assert stall.send(stall.program(wrap)) == {"ETH": -ETHER, "WETH": ETHER}
    assert stall.send(stall.program(replace(wrap, token_in=weth, token_out=NATIVE))) == {"ETH": ETHER, "WETH": -ETHER}


@pytest.mark.parametrize("venue", list(Venue))
def test_what_no_leg_spends_goes_home(venues: Venues, venue: Venue) -> None:
    """A token left here, what others sent here, and native coin sent along for nothing."""
    stall = RebalancerAttack(venues)
    venues.chain.set_balance("USDC", 7, owner=stall.rebalancer)
    leg = stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH"))
    program = stall.program(replace(leg, sink=HERE), WETH=-leg.amount_raw, USDC=leg.min_out_raw)
    assert stall.send(program, value_wei=5) == {"WETH": -leg.amount_raw, "USDC": leg.min_out_raw + 7}
    assert not any(stall.loot().values())


@pytest.mark.parametrize("venue", [Venue.V2, *CONCENTRATED])
def test_exact_allowances_are_used_up(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    leg = stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH"))
    weth = venues.chain.token_contract("WETH").functions
    venues.chain.send(weth.approve(stall.rebalancer, leg.amount_raw), stall.victim, gas=200_000)
    stall.send(stall.program(leg))
    assert weth.allowance(stall.victim, stall.rebalancer).call() == 0


def test_a_pair_of_another_fee_pays_by_its_own(venues: Venues) -> None:
    """The leg names the fee: a pair refuses what a lower one asks, and a higher one leaves the rest in the pair."""
    stall = RebalancerAttack(venues)
    leg = stall.leg(stall.pool(Venue.V2, "WETH", "USDC"), stall.at("WETH"))
    assert "UniswapV2: K" in stall.would(stall.program(replace(leg, tier=2_500)))
    assert stall.would(stall.program(replace(leg, tier=5_000))) == "TooLittleOut(1)"
