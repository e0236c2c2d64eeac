"""Attacks on Rebalancer by hidden losses, skewed prices and what could stay behind (threat T5), for each kind of pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.signing.calldata import selector
from agent.units import NATIVE
from tests.support.constants import ETHER, USD
from tests.support.programs import Condition, Flow, Program, ProgramLeg
from tests.support.rebalancer import RebalancerAttack
from tests.support.samples import examples
from tests.support.venues import CONCENTRATED, Venue, VenuePool, Venues

WALLET, HERE, PAIR = Flow
every_kind_with_callback = pytest.mark.parametrize("venue", CONCENTRATED)


def robbed_in_between(stall: RebalancerAttack, venue: Venue, deposit: int) -> tuple[Program, int]:
    """WETH to EVIL to USDC, whose EVIL is sold by the accomplice as soon as it lies in the pair; then a deposit comes in.

    Returns the program with its least out, and what it would bring.
    """
    chain = stall.chain
    venues = stall.venues
    weth, evil, usdc = (stall.at(symbol) for symbol in ("WETH", "EVIL", "USDC"))
    last = stall.pool(Venue.V2, "EVIL", "USDC")
    first = stall.leg(stall.pool(venue, "EVIL", "WETH"), weth, ETHER // 10, sink=HERE)
    straight = venue is not Venue.V4
    if straight:
        first = replace(first, sink=PAIR, next_token=usdc, next_row=last.row)
    brought = venues.quote(last, evil, first.min_out_raw)
    second = last.leg(evil, 0, brought * 99 // 100, source=PAIR if straight else HERE)
    vault = stall.deploy("OpenVault", stall.victim)
    for symbol, owner, raw in (("USDC", vault.address, 1_000 * USD), ("EVIL", stall.accomplice.address, ETHER)):
        chain.set_balance(symbol, raw, owner=owner)
    amounts = (brought - USD, 0) if last.token0 == usdc else (0, brought - USD)
    steal = stall.calldata(venues.contract(last.address, Venue.V2), "swap", *amounts, stall.thief, b"")
    crumb = stall.calldata(chain.token_contract("EVIL"), "transfer", last.address, ETHER)
    steps = [(last.address, steal), (evil, crumb), (vault.address, stall.calldata(vault, "release", usdc, deposit))]
    stall.prepare(steps, wait=0 if straight else 1)
    return stall.program(first, second, floor_raw=-5 * USD), brought


@every_kind_with_callback
def test_a_deposit_in_mid_flight_hides_no_loss(venues: Venues, venue: Venue) -> None:
    """What others owe the wallet is paid out in the middle, so that its balance grows as the program wants: the leg still says no."""
    stall = RebalancerAttack(venues, evil=True)
    program, brought = robbed_in_between(stall, venue, deposit=300 * USD)
    assert stall.would(program) == "TooLittleOut(2)"
    # The control: by balances and value alone nothing would have been noticed, and the thief has the money.
    first, second = program.legs
    careless = replace(program, legs=[first, replace(second, min_out_raw=1)])
    assert stall.send(careless)["USDC"] < 300 * USD + 2 * USD
    assert stall.outcome() == (3, [])
    assert stall.loot()["USDC"] == brought - USD


@every_kind_with_callback
def test_without_a_deposit_the_balances_tell_of_the_same_robbery(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues, evil=True)
    program, brought = robbed_in_between(stall, venue, deposit=0)
    first, second = program.legs
    any_least = replace(program, legs=[first, replace(second, min_out_raw=1)])
    assert stall.would(any_least) == f"BelowBound({stall.at('USDC').lower()})"
    usdc = replace(program.conditions[stall.at("USDC")], bound_raw=0)
    loose = replace(any_least, conditions={**program.conditions, stall.at("USDC"): usdc})
    assert stall.would(loose).startswith("BelowFloor(-29")
    assert stall.would(replace(loose, floor_raw=-brought - 5 * USD)) == ""


@every_kind_with_callback
def test_value_floor__believes_no_pool_skewed_in_mid_flight(venues: Venues, venue: Venue) -> None:
    """The victim buys EVIL at twice its price, while the accomplice makes another genuine pool say that it is worth that."""
    stall = RebalancerAttack(venues, evil=True)
    chain = venues.chain
    weth, evil, usdc = (stall.at(symbol) for symbol in ("WETH", "EVIL", "USDC"))
    dear = stall.pool(venue, "EVIL", "WETH")
    venues.swap(dear, weth, stall.raw(weth, 700_000))
    other = stall.pool(Venue.V2, "EVIL", "USDC")
    chain.set_balance("USDC", 2_500_000 * USD, owner=stall.accomplice.address)
    amounts = (600_000 * ETHER, 0) if other.token0 == evil else (0, 600_000 * ETHER)
    pump = stall.calldata(venues.contract(other.address, Venue.V2), "swap", *amounts, stall.thief, b"")
    pay = stall.calldata(chain.token_contract("USDC"), "transfer", other.address, 2_500_000 * USD)
    leg = stall.leg(dear, weth)
    program = stall.program(leg, floor_raw=-10 * USD, WETH=-leg.amount_raw, EVIL=0)
    stall.prepare([(usdc, pay), (other.address, pump)])
    assert stall.would(program).startswith("BelowFloor(-")
    stall.send(replace(program, floor_raw=-300 * USD))
    assert stall.outcome() == (2, []), "the other pool was skewed in the middle"


def force_coin(stall: RebalancerAttack, wei: int) -> None:
    """SELFDESTRUCT in creation code sends native coin to whom it likes."""
    eth = stall.chain.w3.eth
    code = "0x73" + stall.rebalancer[2:].lower() + "ff"
    sent = eth.send_transaction({"from": stall.chain.whale.address, "data": code, "value": wei, "gas": 200_000})
    assert eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["status"] == 1


@pytest.mark.parametrize("forced", [0, ETHER])
def test_coin_sent_along_goes_home_and_forced_coin_is_nobodys(venues: Venues, forced: int) -> None:
    stall = RebalancerAttack(venues)
    pool = stall.pool(Venue.V4, "ETH", "USDC")
    weth = stall.at("WETH")
    if forced:
        force_coin(stall, forced)
    assert stall.would("0x", stall.thief, value_wei=1) == "NativeRefused()", "nobody leaves coin here by mistake"
    sell = stall.leg(pool, NATIVE)
    wrap = ProgramLeg(stall.wrapped, NATIVE, weth, ETHER, ETHER)
    for leg in (sell, wrap):
        assert stall.would(stall.program(leg), value_wei=leg.amount_raw - 1) != "", "nobody spends what is not the caller's"
        whole = replace(stall.program(leg), legs=[leg, replace(leg, amount_raw=0, min_out_raw=1, source=HERE)])
        assert stall.would(whole) != "", "nor all that is here"
        assert stall.send(stall.program(leg), value_wei=leg.amount_raw + 7)["ETH"] == -leg.amount_raw
    assert stall.loot()["ETH"] == forced


@pytest.mark.parametrize("venue", [Venue.V2, Venue.V4])
def test_a_wallet_that_takes_no_native_coin_gets_everything_back(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    weth = venues.chain.tokens["WETH"].address
    refuser = stall.deploy("CoinRefuser")
    venues.chain.send(venues.chain.token_contract("WETH").functions.transfer(refuser.address, ETHER))
    legs = [ProgramLeg(stall.wrapped, weth, NATIVE, ETHER, ETHER)]
    if venue is Venue.V4:
        pool = stall.pool(Venue.V4, "ETH", "USDC")
        middle = stall.leg(stall.pool(Venue.V3, "WETH", "USDC"), weth, ETHER, sink=HERE)
        legs = [middle, pool.leg(stall.at("USDC"), 0, 1, source=HERE)]
    data = stall.calldata(refuser, "run", weth, stall.rebalancer, Program(legs, {}).encode())
    answer = stall.would(data, stall.thief, to=refuser.address)
    assert answer == "NativeRefused()" if venue is Venue.V2 else answer != ""
    assert venues.chain.balance("WETH", refuser.address) == ETHER


@pytest.mark.parametrize("hub", [False, True])
@every_kind_with_callback
def test_pool_that_takes_a_part__is_refused_so_no_rest_stays(venues: Venues, venue: Venue, hub: bool) -> None:
    """Its liquidity ends before the whole amount is sold."""
    stall = RebalancerAttack(venues)
    pool = stall.pool(venue, "LINK", "USDT", usd=0)
    usdt = stall.at("USDT")
    usdc = stall.at("USDC")
    tick = round(log(stall.price(pool.token0) / stall.price(pool.token1), 1.0001)) // pool.spacing * pool.spacing
    venues.provide(pool, 10**12, ticks=(tick - pool.spacing, tick + 2 * pool.spacing))
    legs = [pool.leg(usdt, 1_000 * USD, 0)]
    if hub:
        feed = stall.leg(stall.pool(Venue.V3, "USDC", "USDT", tier=(100, 1)), usdc, 1_000 * USD, sink=HERE)
        legs = [feed, pool.leg(usdt, 0, 0, source=HERE)]
    assert stall.would(Program(legs, {})) == f"FilledInPart({len(legs)})"


def test_two_programs_of_one_transaction_do_not_meet(venues: Venues) -> None:
    """Lock and marks are transient, so that they outlive the call: the second call begins as the first did."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    weth = stall.at("WETH")
    chain.set_balance("WETH", 10 * ETHER, owner=stall.accomplice.address)
    approve = stall.calldata(chain.token_contract("WETH"), "approve", stall.rebalancer, 2**200)
    bought = [
        stall.leg(stall.pool(venue, "WETH", symbol), weth, sink=HERE) for venue in (Venue.V3, Venue.V4) for symbol in ("USDC", "LINK")
    ]
    first = Program([bought[0], bought[1]], {})
    second = Program([bought[2]], {})
    stall.prepare([(weth, approve), (stall.rebalancer, first.calldata), (stall.rebalancer, second.calldata)])
    chain.send(stall.accomplice.functions.strike())
    assert stall.outcome() == (3, []), "the second names fewer tokens: what the first left here is not looked for"
    assert chain.balance("USDC", stall.accomplice.address) == bought[0].min_out_raw + bought[2].min_out_raw


@pytest.mark.parametrize(("venue", "error"), [(Venue.V3, "TooMuchAsked()"), (Venue.V4, selector("SafeCastOverflow()").hex())])
def test_a_gift_of_more_than_128_bits_is_not_sold(venues: Venues, venue: Venue, error: str) -> None:
    """As a signed amount it could ask for an exact output. V4's manager itself takes no payment so large."""
    stall = RebalancerAttack(venues)
    feed = stall.leg(stall.pool(Venue.V2, "LINK", "WETH"), stall.at("WETH"), sink=HERE)
    sale = stall.pool(venue, "LINK", "USDC", tier=(10_000, 200)).leg(stall.at("LINK"), source=HERE)
    assert stall.would(Program([feed, sale], {})) == ""
    venues.chain.send(venues.chain.token_contract("LINK").functions.mint(stall.rebalancer, 2**128))
    assert stall.would(Program([feed, sale], {})) == error


PAIRS = [("WETH", "USDC"), ("USDC", "LINK"), ("LINK", "WETH"), ("WETH", "USDT")]


def random_program(stall: RebalancerAttack, pools: list[VenuePool], data: st.DataObject) -> tuple[Program, Counter[str]]:
    """Legs through some of the pools, each once, so that quotes hold: from the wallet, or all that lies here. What the wallet gets."""
    legs: list[ProgramLeg] = []
    here: Counter[str] = Counter()
    wallet: Counter[str] = Counter()
    for pool in data.draw(st.permutations(pools))[: data.draw(st.integers(1, 10))]:
        tokens = pool.token0, pool.token1
        token_in = data.draw(st.sampled_from([token for token in tokens if here[token]] or tokens))
        source = data.draw(st.sampled_from([WALLET, HERE]))
        sink = data.draw(st.sampled_from([WALLET, HERE]))
        if not here[token_in]:
            if token_in == NATIVE:
                continue
            source = WALLET
        raw = here.pop(token_in) if source is HERE else stall.raw(token_in, data.draw(st.integers(1, 20_000)))
        leg = pool.leg(token_in, 0 if source is HERE else raw, stall.venues.quote(pool, token_in, raw), source=source, sink=sink)
        wallet[token_in] -= leg.amount_raw
        (wallet if sink is WALLET else here)[leg.token_out] += leg.min_out_raw
        legs.append(leg)
    wallet.update(here)
    conditions = {token: Condition(stall.price(token), raw) for token, raw in wallet.items()}
    return Program(legs, conditions), Counter(
        {"ETH" if token == NATIVE else stall.symbol(token): raw for token, raw in wallet.items() if raw}
    )


def test_random_programs_of_all_kinds__are_exact_to_the_wei(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    pools = [
        stall.pool(venue, *pair, **({"tier": (500, 10)} if venue is Venue.V3 and "USDT" in pair else {}))
        for venue in Venue
        for pair in PAIRS
    ]
    pools.append(stall.pool(Venue.V4, "ETH", "USDC"))
    for symbol in ("WETH", "USDC", "LINK", "USDT"):
        venues.chain.set_balance(symbol, stall.raw(stall.at(symbol), 1_000_000))
    used: Counter[tuple[str, Flow, Flow]] = Counter()

    @examples(15)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        program, expected = random_program(stall, pools, data)
        if program.legs:
            mark = venues.chain.snapshot()
            assert stall.send(program) == expected
            assert not any(stall.loot().values())
            used.update((leg.row.kind.name, leg.source, leg.sink) for leg in program.legs)
            venues.chain.revert(mark)

    run()
    assert {kind for kind, _, _ in used} == {"PAIR_V2", "POOL_V3", "PANCAKE_V3", "POOL_V4"}
    assert {(source, sink) for _, source, sink in used} == {(source, sink) for source in (WALLET, HERE) for sink in (WALLET, HERE)}
