"""Attacks on Rebalancer by callback, pool, hook and allowance (threats T5, T13), for each callback: each is tried, and gains nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import log

import pytest
from eth_abi.abi import encode

from agent.artifacts import own_artifact
from agent.signing.calldata import selector
from agent.units import NATIVE
from tests.support.attacks import add_foreign, attack
from tests.support.constants import ETHER
from tests.support.programs import Condition, Flow, Program, ProgramLeg
from tests.support.rebalancer import CALLBACKS, RebalancerAttack, unlock_calldata
from tests.support.venues import CONCENTRATED, LOWEST, Venue, VenuePool, Venues

HERE = Flow.HERE
PAIR = Flow.PAIR
every_callback = pytest.mark.parametrize("venue", CONCENTRATED)
every_pool_callback = pytest.mark.parametrize("venue", [venue for venue in CONCENTRATED if venue is not Venue.V4])


def callback(stall: RebalancerAttack, venue: Venue, payer: str, token: str, raw: int, amounts: tuple[int, int] | None = None) -> str:
    """Calldata with which a pool asks Rebalancer for payment, or a manager has it trade for `payer`."""
    if venue is not Venue.V4:
        data = encode(["address", "address", "uint256"], [payer, token, raw])
        words = encode(["int256", "int256", "bytes"], [*(amounts or (raw, -1)), data])
        return "0x" + (selector(CALLBACKS[venue]) + words).hex()
    other = stall.at("USDC" if token == stall.at("WETH") else "WETH")
    program = Program([ProgramLeg(stall.venues.rows[venue], token, other, raw, tier=3_000, spacing=60)], {}).encode()
    return unlock_calldata(program, payer)


def own_swap(pool: VenuePool, recipient: str, raw: int) -> str:
    """Calldata with which anyone starts a swap of token0 in a pool, or unlocks its manager."""
    if pool.venue is Venue.V4:
        return "0x" + (selector("unlock(bytes)") + encode(["bytes"], [b""])).hex()
    words = encode(["address", "bool", "int256", "uint160", "bytes"], [recipient, True, raw, LOWEST, b"\x01"])
    return "0x" + (selector("swap(address,bool,int256,uint160,bytes)") + words).hex()


@every_callback
def test_nobody_makes_an_idle_rebalancer_pay(venues: Venues, venue: Venue) -> None:
    """Forged callback, stolen allowance: the victim's allowance is open, and only its own call spends it."""
    stall = RebalancerAttack(venues)
    pool = stall.pool(venue, "WETH", "USDC")
    before = venues.chain.balances()
    forged = [callback(stall, venue, stall.victim, stall.at(symbol), 10**6) for symbol in ("WETH", "USDC", "USDT")]
    forged += [callback(stall, venue, stall.victim, stall.at("WETH"), 0), callback(stall, venue, stall.rebalancer, stall.at("WETH"), 1)]
    broken = [forged[0][:-64], forged[0] + "00" * 32, "0x" + forged[0][2:10]]
    stall.prepare([(stall.rebalancer, data) for data in forged + broken])
    venues.chain.send(stall.accomplice.functions.strike())
    succeeded, errors = stall.outcome()
    assert succeeded == 0
    assert errors[:5] == ["NotAwaited"] * 5
    for sender in (stall.thief, stall.victim, pool.address, stall.rebalancer):
        assert stall.would(forged[0], sender) == "NotAwaited()"
    assert venues.chain.balances() == before


@pytest.mark.parametrize("venue", list(Venue))
def test_foreign_allowance__is_not_spent_by_the_victim_s_calldata(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    program = stall.program(stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH")))
    assert stall.would(program) == "", "the same call is good when the victim sends it"
    for stolen in (program, replace(program, conditions={})):
        assert stall.would(stolen, stall.thief) == f"TokenRefused({stall.at('WETH').lower()})"


@every_callback
def test_thief_in_a_genuine_pool__spends_no_victim_allowance(venues: Venues, venue: Venue) -> None:
    """The genuine pool, or the genuine manager, calls the thief back, and the thief calls Rebalancer."""
    stall = RebalancerAttack(venues)
    thief = stall.deploy("CallbackThief")
    pool = stall.pool(venue, "WETH", "USDC")
    for payer in (stall.victim, stall.rebalancer, thief.address):
        forged = callback(stall, venue, payer, pool.token0, 10**6)
        steal = stall.calldata(thief, "act", pool.address, own_swap(pool, thief.address, 10**6), stall.rebalancer, forged)
        assert stall.would(steal, stall.thief, to=thief.address) == "NotAwaited()"


@every_callback
def test_reserves_stale_in_a_callback__buy_nothing(venues: Venues, venue: Venue) -> None:
    """Read-only re-entrancy: the pool is called from inside its own swap, and Rebalancer with it."""
    stall = RebalancerAttack(venues)
    caller = stall.deploy("CallbackThief")
    pool = stall.pool(venue, "WETH", "USDC")
    venues.chain.set_balance("USDC", 10**9, owner=caller.address)
    approve = stall.calldata(venues.chain.token_contract("USDC"), "approve", stall.rebalancer, 2**200)
    venues.chain.send(caller.functions.act(stall.at("USDC"), approve, stall.at("USDC"), "0x"))
    program = Program([pool.leg(stall.at("USDC"), 10**8)], {})
    data = stall.calldata(caller, "act", pool.address, own_swap(pool, caller.address, 10**6), stall.rebalancer, program.calldata)
    assert stall.would(data, stall.thief, to=caller.address) == ("AlreadyUnlocked()" if venue is Venue.V4 else "LOK")


@pytest.mark.parametrize("sells_evil", [True, False])
@every_callback
def test_malicious_token__forges_no_callback(venues: Venues, venue: Venue, sells_evil: bool) -> None:
    """Bought, the token runs while the pool is awaited; sold, just after it was served. It sends the very data that is awaited."""
    stall = RebalancerAttack(venues, evil=True)
    sold = "EVIL" if sells_evil else "WETH"
    pool = stall.pool(venue, "EVIL", "WETH")
    other = stall.pool(venue, "USDC", "USDT")
    leg = stall.leg(pool, stall.at(sold))
    program = stall.program(leg, stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH")))
    amounts = (leg.amount_raw, -1) if pool.token0 == stall.at(sold) else (-1, leg.amount_raw)
    awaited = [
        callback(stall, venue, stall.victim, stall.at(sold), leg.amount_raw, amounts),
        unlock_calldata(program.encode(), stall.victim),
    ]
    others = [callback(stall, pool, stall.victim, stall.at(symbol), 10**6) for pool in CONCENTRATED for symbol in ("WETH", "USDC", "EVIL")]
    thief = stall.deploy("CallbackThief")
    forged = callback(stall, venue, stall.victim, other.token0, 10**6)
    genuine = stall.calldata(thief, "act", other.address, own_swap(other, thief.address, 10**6), stall.rebalancer, forged)
    steps = [(stall.rebalancer, data) for data in (*awaited, *others, program.calldata)]
    stall.prepare([*steps, (thief.address, genuine)])
    loot = stall.loot()
    changes = stall.send(program)
    succeeded, errors = stall.outcome()
    assert succeeded == 0
    last = "AlreadyUnlocked" if venue is Venue.V4 else "NotAwaited"
    assert errors == ["NotAwaited"] * (len(steps) - 1) + ["Reentered", last]
    assert stall.loot() == loot
    assert changes == {symbol: raw for symbol, raw in totals(stall, program).items() if raw}


def totals(stall: RebalancerAttack, program: Program) -> dict[str, int]:
    """What the wallet gives and gets by a program whose leasts are the quotes."""
    return {stall.symbol(token): condition.bound_raw for token, condition in program.conditions.items()}


def test_a_hook_reenters_nothing_and_settles_nothing_for_itself(venues: Venues) -> None:
    """Before and after the swap the accomplice calls each entry, and the manager in Rebalancer's name."""
    stall = RebalancerAttack(venues)
    pool = stall.hooked_pool("WETH", "USDC")
    program = stall.program(stall.leg(pool, stall.at("WETH")))
    entries = [program.calldata, unlock_calldata(program.encode(), stall.victim)]
    entries += [callback(stall, venue, stall.victim, stall.at("WETH"), 10**6) for venue in CONCENTRATED]
    for wait in (0, 1):
        mark = venues.chain.snapshot()
        stall.prepare([(stall.rebalancer, data) for data in entries], wait)
        changes = stall.send(program)
        assert stall.outcome() == (0, ["Reentered"] + ["NotAwaited"] * 5)
        assert changes == totals(stall, program)
        assert not any(stall.loot().values())
        venues.chain.revert(mark)


@pytest.mark.parametrize("wait", [0, 1])
@pytest.mark.parametrize("dirt", ["take", "mint", "settleFor", "sync"])
def test_dirty_deltas_of_a_hook__undo_all_or_nothing(venues: Venues, dirt: str, wait: int) -> None:
    """What is taken must be paid by whom took it; what is given to Rebalancer unasked cannot be left there."""
    stall = RebalancerAttack(venues)
    pool = stall.hooked_pool("WETH", "USDC")
    manager = venues.manager
    weth = stall.at("WETH")
    venues.chain.set_balance("WETH", ETHER, owner=stall.accomplice.address)
    calls = {
        "take": [(pool.address, stall.calldata(manager, "take", weth, stall.thief, 10**6))],
        "mint": [(pool.address, stall.calldata(manager, "mint", stall.thief, int(weth, 16), 10**6))],
        "settleFor": [
            (pool.address, stall.calldata(manager, "sync", weth)),
            (weth, stall.calldata(venues.chain.token_contract("WETH"), "transfer", pool.address, 10**6)),
            (pool.address, stall.calldata(manager, "settleFor", stall.rebalancer)),
        ],
        "sync": [(pool.address, stall.calldata(manager, "sync", weth))],
    }[dirt]
    stall.prepare(calls, wait)
    program = stall.program(stall.leg(pool, weth))
    status, changes = stall.attempt(program)
    if dirt == "sync":
        assert (status, changes) == (1, totals(stall, program)), "each payment names its own currency first"
    else:
        assert (status, changes) == (0, {})
        assert stall.would(program) == "CurrencyNotSettled()"
    assert stall.loot()["WETH"] == ETHER


def test_token_that_settles_for_itself__undoes_the_transaction(venues: Venues) -> None:
    """The tokens lie in the manager already, and Rebalancer has not yet said so: an accomplice says it first."""
    stall = RebalancerAttack(venues, evil=True)
    pool = stall.pool(Venue.V4, "EVIL", "WETH")
    manager = venues.manager
    evil = stall.at("EVIL")
    leg = stall.leg(pool, evil)
    settle = (pool.address, stall.calldata(manager, "settle"))
    stall.prepare([settle, (pool.address, stall.calldata(manager, "take", evil, stall.thief, leg.amount_raw))])
    assert stall.would(stall.program(leg)) == "CurrencyNotSettled()"
    stall.prepare([(pool.address, stall.calldata(manager, "sync", stall.at("WETH")))])
    assert stall.would(stall.program(leg)) == "CurrencyNotSettled()", "the payment is counted as one of another currency"


@pytest.mark.parametrize("short", [1, 10**6])
def test_hook_that_keeps_a_part__is_refused_by_the_leg(venues: Venues, short: int) -> None:
    stall = RebalancerAttack(venues)
    pool = stall.hooked_pool("WETH", "USDC", share=short)
    quoted = stall.leg(pool, stall.at("WETH"))
    asks_all = replace(quoted, min_out_raw=quoted.min_out_raw + short)
    assert stall.would(stall.program(asks_all)) == "TooLittleOut(1)"
    assert stall.would(stall.program(quoted)) == "", "the quoter of V4 tells what the hook leaves"


@pytest.mark.parametrize("grab", ["skim", "sync"])
@every_pool_callback
def test_malicious_token__grabs_nothing_between_legs(venues: Venues, venue: Venue, grab: str) -> None:
    """The genuine pool has sent WETH ahead into the pair and is being paid with EVIL: now the pair is skimmed."""
    stall = RebalancerAttack(venues, evil=True)
    pair = stall.pool(Venue.V2, "WETH", "USDC")
    first = stall.leg(stall.pool(venue, "EVIL", "WETH"), stall.at("EVIL"), sink=PAIR, next_token=stall.at("USDC"), next_row=pair.row)
    second = pair.leg(stall.at("WETH"), 0, venues.quote(pair, stall.at("WETH"), first.min_out_raw), source=PAIR)
    program = stall.program(first, second)
    assert stall.would(program) == ""
    contract = venues.contract(pair.address, Venue.V2)
    data = stall.calldata(contract, "skim", stall.thief) if grab == "skim" else stall.calldata(contract, "sync")
    stall.prepare([(pair.address, data)])
    assert stall.would(program) == "TooLittleOut(2)"
    assert stall.attempt(program) == (0, {})
    assert not stall.loot()["WETH"]


@pytest.mark.parametrize("venue", list(Venue))
def test_flooding_or_refusing_token__costs_only_its_swap(venues: Venues, venue: Venue) -> None:
    """Nobody copies the megabyte, else the gas would not suffice. FALSE says no by its answer alone; its pool holds only USDC."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    mega = chain.deploy(own_artifact("MegabyteToken"))
    good = stall.program(stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH")))
    assert stall.would(replace(good, conditions={**good.conditions, mega: Condition(Fraction(0), 0)})) == ""
    false = add_foreign(chain, "FALSE", attack("FalseToken"))
    pool = stall.pool(venue, "FALSE", "USDC", usd=0)
    usdc = stall.at("USDC")
    if venue is not Venue.V2:
        tick = round(log(stall.price(pool.token0) / stall.price(pool.token1), 1.0001)) // pool.spacing * pool.spacing
        side = (tick + 100 * pool.spacing, tick + 200 * pool.spacing) if pool.token0 == usdc else (tick - 200 * pool.spacing, tick)
        venues.provide(pool, 10**15, ticks=side)
    refused = Program([*good.legs, pool.leg(false.address, ETHER)], good.conditions)
    assert stall.would(refused) == f"TokenRefused({false.address.lower()})"


@pytest.mark.parametrize("sells", [True, False])
@pytest.mark.parametrize("venue", list(Venue))
def test_a_fee_on_transfer_loses_nobody_money(venues: Venues, venue: Venue, sells: bool) -> None:
    """Sold, it arrives short: a pool refuses it, and a pair counts what arrived. Bought, it reaches the wallet short of its bound."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    fee = add_foreign(chain, "FEE", attack("SwitchedFeeToken"))
    venues.fund(["FEE"])
    chain.set_balance("FEE", 1_000 * ETHER)
    stall.approve("FEE", stall.victim)
    pool = stall.pool(venue, "FEE", "USDC")
    leg = stall.leg(pool, fee.address if sells else stall.at("USDC"))
    short = replace(leg, min_out_raw=venues.quote(pool, leg.token_in, leg.amount_raw * 99 // 100))
    assert stall.would(stall.program(leg)) == ""
    chain.send(chain.contract(fee.address, attack("SwitchedFeeToken")).functions.setFee(100, NATIVE))
    refusals = {Venue.V2: "TooLittleOut(1)", Venue.V4: "CurrencyNotSettled()"} if sells else {}
    refusal = refusals.get(venue, "IIA" if sells else f"BelowBound({fee.address.lower()})")
    assert stall.would(stall.program(leg)) == refusal
    assert stall.attempt(stall.program(leg)) == (0, {})
    if sells and venue is Venue.V2:
        assert stall.send(stall.program(short)) == {"FEE": -leg.amount_raw, "USDC": short.min_out_raw}
