"""Answers of a futures venue as words: every number in its place, and an account whose parts do not add up is not believed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from agent.chain.lens import CallStatus, LensAnswer, int_word, uint_word
from agent.chain.perpetuals import UNKNOWN_INDEX_S, PerpMarketRef, PerpScope, perp_questions, read_account
from agent.model.futures import MarginAccount
from tests.support.builders import address, token

WAD = 10**18
USD = 10**6
COLLATERAL = token("USDC", 6)
MARKET = PerpMarketRef(address("base"), "WETH", address("weth"), address("aggregator"))
SCOPE = PerpScope(
    trader=address("trader"),
    collateral=COLLATERAL,
    vault=address("vault"),
    account_balance_contract=address("balances"),
    clearing_house=address("house"),
    exchange=address("exchange"),
    market_registry=address("registry"),
    config_contract=address("config"),
    markets=(MARKET,),
)
# A long of one coin at a mark of 2,000 that cost 1,990 and owes 3 of funding, on 1,000 of collateral and 5 of realised profit.
ANSWERS: dict[str, Any] = {
    "collateral": (1_000 * USD,),
    "settlement token": (int(COLLATERAL.address, 16),),
    "profit": (5 * WAD, 10 * WAD, 0),
    "markets held": (32, 1, int(MARKET.base, 16)),
    "orders": (0,),
    "account value": (1_012 * USD,),
    "other collateral": (32, 0),
    "maintenance margin": (125 * WAD,),
    "free margin": (803 * USD,),
    "initial ratio": (100_000,),
    "maintenance ratio": (62_500,),
    "maximum funding rate": (100_000,),
    "position in WETH": (WAD,),
    "open notional in WETH": (-1_990 * WAD,),
    "funding in WETH": (3 * WAD,),
    "mark of WETH": (2_000 * WAD,),
    "index of WETH": (1_999 * WAD,),
    "mean index of WETH": (1_600 * WAD,),
    "mean market price of WETH": (41 * 2**96,),
    "fee of WETH": (1_000,),
    "maximum ticks per block of WETH": (100,),
    "state of WETH": (1,),
    "index round of WETH": (7, 1_999, 50, 60, 7),
}


def read(scope: PerpScope = SCOPE, **changes: Any) -> MarginAccount | str:
    """Return the account by these answers, some of them changed; underscores stand for blanks."""
    changed = ANSWERS | {name.replace("_", " "): answer for name, answer in changes.items()}

    def encode(answer: Any) -> LensAnswer:
        return answer if isinstance(answer, CallStatus) else b"".join(map(int_word, answer))

    return read_account(scope, [encode(changed[question.name]) for question in perp_questions(scope)])


def account(**changes: Any) -> MarginAccount:
    read_one = read(**changes)
    assert isinstance(read_one, MarginAccount), read_one
    return read_one


def test_collateral_and_realised_profit_are_in_quote_units() -> None:
    assert account().collateral_raw == 1_000 * WAD
    assert account().realised_raw == 5 * WAD


def test_a_position_keeps_size_cost_and_funding_with_their_signs() -> None:
    (position,) = account().positions
    assert (position.size_raw, position.open_notional_raw, position.funding_pending_raw) == (WAD, -1_990 * WAD, 3 * WAD)


def test_a_market_keeps_mark_index_and_fee() -> None:
    (market,) = account().markets
    assert (market.mark, market.index, market.fee_ppm) == (2_000, 1_999, 1_000)


def test_an_index_has_the_second_of_its_last_update() -> None:
    assert account().markets[0].index_s == 60


def test_without_a_round_the_age_of_an_index_is_unknown() -> None:
    assert account(index_round_of_WETH=CallStatus.FAILED).markets[0].index_s == UNKNOWN_INDEX_S


def test_daily_funding_is_the_premium_of_the_mean_market_price() -> None:
    assert account().markets[0].funding_daily == Fraction(41**2 - 1_600, 1_600)


@pytest.mark.parametrize(("root", "funding"), [(60, Fraction(1, 10)), (20, Fraction(-1, 10))])
def test_daily_funding_is_capped_in_both_directions(root: int, funding: Fraction) -> None:
    assert account(mean_market_price_of_WETH=(root * 2**96,)).markets[0].funding_daily == funding


@pytest.mark.parametrize(
    ("change", "is_paused"), [({}, False), ({"state_of_WETH": (0,)}, True), ({"maximum_ticks_per_block_of_WETH": (0,)}, True)]
)
def test_a_market_that_is_closed_or_lets_no_price_move_is_paused(change: dict[str, Any], is_paused: bool) -> None:
    assert account(**change).markets[0].is_paused is is_paused


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("account_value", (1_012 * USD + 1,)),
        ("account_value", (1_012 * USD - 1,)),
        ("maintenance_margin", (125 * WAD + 1,)),
        ("free_margin", (803 * USD + 1,)),
        ("free_margin", (803 * USD - 1,)),
        ("profit", (5 * WAD, 10 * WAD, 1)),
        ("orders", (1,)),
        ("settlement_token", (7,)),
        ("markets_held", (32, 1, 7)),
        ("mark_of_WETH", (0,)),
        ("index_of_WETH", (0,)),
        ("mean_index_of_WETH", (0,)),
    ],
)
def test_account_off_by_one_or_partly_known__is_unreadable(name: str, answer: tuple[int, ...]) -> None:
    assert isinstance(read(**{name: answer}), str)


@pytest.mark.parametrize("name", [question.name for question in perp_questions(SCOPE)])
def test_an_account_of_which_an_answer_is_missing_is_unreadable(name: str) -> None:
    assert isinstance(read(**{name: CallStatus.FAILED}), str) == (name != "index round of WETH")


@pytest.mark.parametrize(("free", "is_read"), [(803 * USD + 1, True), (803 * USD - 1, False)])
def test_another_collateral_may_only_add_free_margin(free: int, is_read: bool) -> None:
    assert isinstance(read(other_collateral=(32, 1, 9), free_margin=(free,)), MarginAccount) is is_read


def test_a_market_without_a_position_stays_and_has_none() -> None:
    flat = {"position_in_WETH": (0,), "open_notional_in_WETH": (0,), "funding_in_WETH": (0,), "markets_held": (32, 0)}
    read_flat = account(**flat, account_value=(1_005 * USD,), maintenance_margin=(0,), free_margin=(1_005 * USD,))
    assert read_flat.positions == ()
    assert [market.market for market in read_flat.markets] == [MARKET.base]


def test_mean_index__is_over_the_funding_window() -> None:
    items = {question.name: question.item.calldata for question in perp_questions(SCOPE)}
    assert items["index of WETH"][-32:] == uint_word(0)
    assert items["mean index of WETH"][-32:] == uint_word(900)
    assert items["mean market price of WETH"][-32:] == uint_word(900)
