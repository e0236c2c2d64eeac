"""Forged factories and managers, wrong hashes and torn programs before Rebalancer (threats T5, T13).

Makers and hashes stand in the victim's own program: the signer checks them, and these tests show what a mistake there could cost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from agent.signing.calldata import selector
from tests.support.attacks import attack
from tests.support.constants import ETHER
from tests.support.programs import Flow, Program, ProgramLeg, Row, RowKind, rebalance_calldata
from tests.support.rebalancer import CALLBACKS, RebalancerAttack, unlock_calldata
from tests.support.venues import CONCENTRATED, Venue, Venues

HERE = Flow.HERE
PAIR = Flow.PAIR
every_callback = pytest.mark.parametrize("venue", CONCENTRATED)
every_pool_callback = pytest.mark.parametrize("venue", [venue for venue in CONCENTRATED if venue is not Venue.V4])


def fork(stall: RebalancerAttack, venue: Venue, tier: int) -> tuple[Row, Any]:
    """A forged factory of pools with other code, and its pool of WETH and USDC."""
    factory = stall.deploy("ForkFactory")
    tokens = sorted([stall.at("WETH"), stall.at("USDC")], key=lambda token: int(token, 16))
    stall.chain.send(factory.functions.make(*tokens, tier))
    row = Row(stall.venues.rows[venue].kind, factory.address, bytes(factory.functions.initCodeHash().call()))
    salt = keccak(encode(["address", "address", "uint256"], [*tokens, tier]))
    address = keccak(b"\xff" + bytes.fromhex(row.maker[2:]) + salt + row.word)[12:]
    pool = stall.chain.contract("0x" + address.hex(), attack("ForkPool"))
    stall.chain.send(pool.functions.speak(selector(CALLBACKS[venue])))
    return row, pool


@every_pool_callback
def test_fork_with_other_init_code__is_never_served(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    genuine = stall.pool(venue, "WETH", "USDC")
    _, pool = fork(stall, venue, genuine.tier)
    demand = stall.calldata(
        pool, "demand", stall.rebalancer, 1, -1, encode(["address"] * 2 + ["uint256"], [stall.victim, stall.at("WETH"), 1])
    )
    assert stall.would(demand, stall.thief, to=pool.address) == "NotAwaited()"
    price = venues.sqrt_price_x96(genuine)
    stall.send(stall.program(stall.leg(genuine, stall.at("WETH"))))
    assert pool.functions.swaps().call() == 0
    assert venues.sqrt_price_x96(genuine) != price


@pytest.mark.parametrize("venue", list(Venue))
def test_a_wrong_hash_a_wrong_maker_or_a_wrong_tier_has_no_pool(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    leg = stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH"))
    wrong = [replace(leg, row=replace(leg.row, maker=stall.thief))]
    if venue is not Venue.V4:
        wrong += [replace(leg, row=replace(leg.row, word=keccak(leg.row.word)))]
        wrong += [replace(leg, row=replace(leg.row, word=row.word)) for row_entry, row in venues.rows.items() if row_entry is not venue]
    if venue not in (Venue.V2, Venue.V4):
        wrong += [replace(leg, tier=leg.tier + 1)]
    assert [stall.would(stall.program(leg)) for leg in wrong] == ["NoSuchPool(1)"] * len(wrong)
    if venue is Venue.V4:
        for wrong_leg in (
            replace(leg, tier=leg.tier + 1),
            replace(leg, spacing=61),
            replace(leg, row=replace(leg.row, word=bytes(31) + b"\xc0")),
        ):
            assert stall.would(stall.program(wrong_leg)) == "PoolNotInitialized()"
        assert stall.would(stall.program(replace(leg, row=replace(leg.row, word=b"\x01" + bytes(31))))) != "", "no address"


@pytest.mark.parametrize("venue", list(Venue))
def test_a_row_of_another_kind_reaches_no_pool(venues: Venues, venue: Venue) -> None:
    """The same factory under another kind: the callback has another name, or the pool another interface."""
    stall = RebalancerAttack(venues)
    leg = stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH"))
    for kind in set(RowKind) - {leg.row.kind}:
        assert stall.would(stall.program(replace(leg, row=replace(leg.row, kind=kind)))) != ""
    data = stall.program(leg).encode()
    place = 24 + 2 * (20 + 40)
    assert data[place] == leg.row.kind
    assert stall.would(rebalance_calldata(data[:place] + b"\x05" + data[place + 1 :])) == "Malformed()"


@pytest.mark.parametrize(
    ("asks", "extra", "claims", "words"),
    [
        pytest.param(1, 0, 10**12, "BelowBound", id="one call, exact"),
        pytest.param(2, 0, 10**12, "NotAwaited", id="two calls"),
        pytest.param(1, 1, 10**12, "TooMuchAsked", id="a unit too much"),
        pytest.param(1, -(10**17), 10**12, "TooMuchAsked", id="less than nothing"),
        pytest.param(0, 0, 10**12, "NeverCalledBack", id="no call"),
        pytest.param(1, 0, 0, "TooLittleOut", id="nothing claimed"),
        pytest.param(1, 0, -1, "TooLittleOut", id="negative claim"),
    ],
)
@every_pool_callback
def test_forged_factory__is_asked_once_and_robs_nobody(
    venues: Venues, venue: Venue, asks: int, extra: int, claims: int, words: str
) -> None:
    """Such a pool asks twice, for more, or pays nothing of what it says."""
    stall = RebalancerAttack(venues)
    row, pool = fork(stall, venue, 500)
    venues.chain.send(pool.functions.pretend(asks, extra % 2**256, claims))
    leg = ProgramLeg(row, stall.at("WETH"), stall.at("USDC"), ETHER // 10, 299 * 10**6, 500)
    assert stall.would(stall.program(leg)).startswith(words)


@every_pool_callback
def test_a_pool_that_calls_back_by_another_name_is_not_served(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    row, pool = fork(stall, venue, 500)
    leg = ProgramLeg(row, stall.at("WETH"), stall.at("USDC"), ETHER // 10, 1, 500)
    assert stall.would(Program([leg], {})) == "", "by its own name it takes the leg's amount, without a bound"
    other = Venue.V3 if venue is Venue.PANCAKE else Venue.PANCAKE
    venues.chain.send(pool.functions.speak(selector(CALLBACKS[other])))
    assert stall.would(Program([leg], {})) == "NotAwaited()"


@every_pool_callback
def test_a_pool_of_another_leg_is_not_served_in_this_legs_turn(venues: Venues, venue: Venue) -> None:
    """A forged pool of a later leg asks while a genuine one is awaited, with the very data: EVIL runs it in between."""
    stall = RebalancerAttack(venues, evil=True)
    row, pool = fork(stall, venue, 500)
    first = stall.leg(stall.pool(venue, "EVIL", "WETH"), stall.at("WETH"))
    second = ProgramLeg(row, stall.at("WETH"), stall.at("USDC"), first.amount_raw, 1, 500)
    words = encode(["address", "address", "uint256"], [stall.victim, stall.at("WETH"), first.amount_raw])
    stall.prepare([(pool.address, stall.calldata(pool, "demand", stall.rebalancer, first.amount_raw, first.amount_raw, words))])
    program = Program([first, second], {})
    changes = stall.send(program)
    assert stall.outcome() == (0, ["NotAwaited"])
    assert changes["WETH"] == -2 * first.amount_raw, "each leg's pool was served in its turn, once"


@pytest.mark.parametrize(
    ("calls", "extra", "claims", "words"),
    [
        pytest.param(1, 0, 10**12, "BelowBound", id="one call, exact"),
        pytest.param(2, 0, 10**12, "NotAwaited", id="two calls"),
        pytest.param(0, 0, 10**12, "NeverCalledBack", id="no call"),
        pytest.param(1, 1, 10**12, "FilledInPart", id="a unit too much"),
        pytest.param(1, -1, 10**12, "FilledInPart", id="a unit too little"),
        pytest.param(1, 0, 0, "TooLittleOut", id="nothing claimed"),
        pytest.param(1, 0, -1, "TooLittleOut", id="negative claim"),
    ],
)
def test_a_forged_manager_in_the_victims_own_program_robs_nobody(venues: Venues, calls: int, extra: int, claims: int, words: str) -> None:
    """It calls back twice or never, takes more or less than the leg says, or pays nothing of what it claims."""
    stall = RebalancerAttack(venues)
    forged = stall.deploy("ForgedManager", calls, extra, claims, b"")
    leg = ProgramLeg(Row(RowKind.POOL_V4, forged.address), stall.at("WETH"), stall.at("USDC"), ETHER // 10, 299 * 10**6, 500, 10)
    assert stall.would(stall.program(leg)).startswith(words)


def test_forged_manager_with_other_words__is_not_served(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    weth = stall.at("WETH")
    usdc = stall.at("USDC")
    greedy = Program([ProgramLeg(venues.rows[Venue.V4], weth, usdc, 10 * ETHER, 1, 500, 10)], {}).encode()
    words = bytes.fromhex(unlock_calldata(greedy, stall.victim)[2 + 8 + 128 :])[: len(greedy) + 96]
    forged = stall.deploy("ForgedManager", 1, 0, 10**12, words)
    leg = ProgramLeg(Row(RowKind.POOL_V4, forged.address), weth, usdc, ETHER // 10, 1, 500, 10)
    assert stall.would(Program([leg], {})) == "NotAwaited()"


def test_tokens_sent_nowhere_or_a_wrong_way__are_refused(venues: Venues) -> None:
    stall = RebalancerAttack(venues)
    weth = stall.at("WETH")
    usdt = stall.at("USDT")
    for venue in Venue:
        pool = stall.pool(venue, "WETH", "USDC")
        leg = stall.leg(pool, weth)
        straight = replace(leg, sink=PAIR, next_token=usdt, next_row=venues.rows[Venue.V2])
        bound = stall.program(leg).conditions
        assert stall.would(Program([straight], bound)).startswith("Malformed" if venue is Venue.V4 else "BelowBound")
        assert stall.would(Program([replace(straight, next_row=venues.rows[Venue.V3])], bound)) == "Malformed()"
        if venue is not Venue.V2:
            assert stall.would(stall.program(replace(leg, source=PAIR))) == "Malformed()"
        nothing = stall.would(stall.program(replace(leg, source=HERE)))
        assert nothing in ("TooLittleOut(1)", "AS", "SwapAmountCannotBeZero()"), "nobody left anything here"


@every_callback
def test_program__is_not_run_after_its_deadline_or_when_torn(venues: Venues, venue: Venue) -> None:
    stall = RebalancerAttack(venues)
    now_s = venues.chain.now_s()
    program = stall.program(stall.leg(stall.pool(venue, "WETH", "USDC"), stall.at("WETH")))
    assert stall.would(replace(program, deadline_s=now_s - 1)) == "Expired()"
    assert stall.would(replace(program, deadline_s=now_s + 600)) == ""
    data = program.encode()
    place = len(data) - 44
    torn = [data[:-1], data + b"\x00", data[:place], data[:5], b""]
    torn += [data[: place + number] + b"\xff" + data[place + number + 1 :] for number in range(4)]
    torn += [data[:number] + b"\x09" + data[number + 1 :] for number in (5, 6, 7)]
    for broken in torn:
        assert stall.would(rebalance_calldata(broken)) in ("Malformed()", "Expired()")
