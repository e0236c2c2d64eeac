"""A margin account read by the lens in one request: equal to the views, and refused where it is not known for certain."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.lens import CallStatus, LensAnswer, query_lens, uint_word
from agent.chain.perpetuals import perp_questions, read_account, unread_bases
from agent.localchain.perpetuals import FAR_FUTURE_S, LocalPerps
from agent.margin import account as margin
from agent.model.futures import MarginAccount
from agent.units import Token
from tests.support.perps import WAD, account_of, advance_time, scope_of


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    return perps_chain


def answers_of(perps: LocalPerps, who: str) -> list[LensAnswer]:
    items = [question.item for question in perp_questions(scope_of(perps, who))]
    return list(query_lens(perps.chain.transport, items))


def with_positions(perps: LocalPerps) -> str:
    who = perps.chain.accounts[3].address
    perps.deposit(who, 10_000 * 10**6)
    perps.trade(who, "WETH", 3 * WAD)
    perps.trade(who, "WBTC", -WAD // 10)
    return who


def test_the_lens_reads_what_the_views_answer(perps: LocalPerps) -> None:
    who = with_positions(perps)
    advance_time(perps, 3_600)
    read = read_account(scope_of(perps, who), answers_of(perps, who))
    assert isinstance(read, MarginAccount)
    views = account_of(perps, who)
    assert (read.collateral_raw, read.realised_raw, read.positions) == (views.collateral_raw, views.realised_raw, views.positions)
    for ours, theirs in zip(read.markets, views.markets, strict=True):
        assert replace(ours, index_s=0) == replace(theirs, index_s=0)
        assert 0 <= perps.chain.now_s() - ours.index_s < 60


def test_funding_beyond_the_cap_of_the_venue_counts_at_the_cap(perps: LocalPerps) -> None:
    who = with_positions(perps)
    scope = scope_of(perps, perps.chain.accounts[3].address)
    answers = answers_of(perps, who)
    at = next(number for number, perp_question in enumerate(perp_questions(scope)) if perp_question.name == "mean index of WETH")
    answer = answers[at]
    assert isinstance(answer, bytes)
    for factor, cap in ((2, Fraction(-1, 10)), (Fraction(1, 2), Fraction(1, 10))):
        moved = uint_word(int(int.from_bytes(answer, "big") * factor))
        read = read_account(scope, [*answers[:at], moved, *answers[at + 1 :]])
        assert isinstance(read, MarginAccount)
        assert read.markets[0].funding_daily == cap


def test_an_empty_account_is_read_as_empty(perps: LocalPerps) -> None:
    who = perps.chain.accounts[5].address
    read = read_account(scope_of(perps, who), answers_of(perps, who))
    assert isinstance(read, MarginAccount)
    assert (read.collateral_raw, read.positions, len(read.markets)) == (0, (), 2)


def test_a_negative_balance_of_the_vault_is_a_debt(perps: LocalPerps) -> None:
    """Settled losses above the collateral (AccountBalance settles them into Vault's int256)."""
    who = perps.chain.accounts[5].address
    debt = uint_word(2**256 - 5 * 10**6)
    scope = scope_of(perps, who)
    answers = answers_of(perps, who)
    for number, perp_question in enumerate(perp_questions(scope)):
        if perp_question.name in ("collateral", "account value"):
            answers[number] = debt
    read = read_account(scope, answers)
    assert isinstance(read, MarginAccount), read
    assert read.collateral_raw == -5 * WAD
    assert margin.account_value_raw(read) == -5 * WAD
    assert margin.free_margin_raw(read) <= 0


def test_a_position_in_another_market_makes_the_account_unknown(perps: LocalPerps) -> None:
    who = with_positions(perps)
    scope = scope_of(perps, perps.chain.accounts[3].address)
    narrow = replace(scope, markets=scope.markets[:1])
    items = [question.item for question in perp_questions(narrow)]
    read = read_account(narrow, list(query_lens(perps.chain.transport, items)))
    assert who == scope.trader
    assert read == f"the account has positions in markets not configured: {scope.markets[1].base.lower()}"


@pytest.mark.parametrize("name", ["markets held", "other collateral"])
def test_non_address__is_no_market_and_makes_all_unknown(perps: LocalPerps, name: str) -> None:
    """A lying endpoint may set a bit above an address, which no contract can answer."""
    who = with_positions(perps)
    scope = scope_of(perps, who)
    answers = answers_of(perps, who)
    at = next(number for number, perp_question in enumerate(perp_questions(scope)) if perp_question.name == name)
    base = int(scope.markets[0].base, 16)
    answers[at] = uint_word(32) + uint_word(2) + uint_word(base | 1 << 160) + uint_word(base)
    assert unread_bases(scope, answers) == ()
    assert read_account(scope, answers) == f"{name} could not be read: {CallStatus.MALFORMED.why}"


def test_foreign_margin_token__makes_the_account_unknown(perps: LocalPerps) -> None:
    """A euro coin of as many decimals would count its margin in euros."""
    who = with_positions(perps)
    scope = scope_of(perps, who)
    euros = replace(scope, collateral=Token(perps.chain.tokens["WETH"].address, "EURC", scope.collateral.decimals))
    read = read_account(euros, answers_of(perps, who))
    assert isinstance(read, str)
    assert "not in futures.collateral EURC" in read


def test_liquidity_of_its_own_makes_the_account_unknown(perps: LocalPerps) -> None:
    who = with_positions(perps)
    base = perps.markets["WETH"].base_token
    perps.chain.send(
        perps.clearing_house.functions.addLiquidity((base, WAD // 100, 10 * WAD, 60_000, 90_000, 0, 0, False, FAR_FUTURE_S)), who
    )
    read = read_account(scope_of(perps, who), answers_of(perps, who))
    assert read == "the account provides liquidity, whose value is not counted"


def test_no_single_answer_can_be_falsified_or_missing_unnoticed(perps: LocalPerps) -> None:
    """A lie in any figure of the account contradicts the others; prices alone are checked elsewhere."""
    who = with_positions(perps)
    scope = scope_of(perps, who)
    answers = answers_of(perps, who)
    questions = perp_questions(scope)
    prices = ("index", "mean", "fee of", "maximum ticks", "state", "maximum funding rate")
    for number, question in enumerate(questions):
        missing = [*answers[:number], CallStatus.FAILED, *answers[number + 1 :]]
        without = read_account(scope, missing)
        if question.name.startswith("index round of"):
            assert not isinstance(without, str), "the other markets can still be reduced"
            unknown = [market.symbol for market in without.markets if not market.index_s]
            assert unknown == [question.name.removeprefix("index round of ")]
        else:
            assert without == f"{question.name} could not be read: {CallStatus.FAILED.why}"
        answer = answers[number]
        assert isinstance(answer, bytes)
        doubled = uint_word((int.from_bytes(answer[:32], "big") * 2 + 10**13) % 2**256) + answer[32:]
        read = read_account(scope, [*answers[:number], doubled, *answers[number + 1 :]])
        assert isinstance(read, str) or question.name.startswith(prices), question.name
