"""Tests of agent/layers/futures/policy/exposure.py: the margin account in the portfolio, exposures, and expected funding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.layers.futures.policy.exposure import (
    PriceExposure,
    account_fault,
    expected_funding,
    expected_funding_of_all,
    exposures,
    funding_cost_share,
    is_delegate_wallet,
    margin_baseline,
    margin_fault,
    margin_holdings,
    margin_holdings_in_weights,
    margin_holdings_outside_weights,
    margin_result,
    margin_value,
    market_terms,
    quote_rate,
    spot_portfolio_value,
    spot_value_raw,
    uncertain_spot_reason,
    unknown_margin_reason,
)
from agent.layers.futures.state import futures_policy, with_policy
from agent.margin import account as margin
from agent.model import AssetDrift, Exclusions, NavPerShare, ScreenedToken, StepInput, TokenFinding
from agent.model.futures import FuturesPolicy, FuturesReading, MarginAccount, MarginBaseline, PerpMarket, Position, StaleRead, StaleReadKind
from agent.policy.decide import current_drifts
from agent.policy.quarantine import quarantine_tokens
from agent.units import DAY_S, Token
from tests.support.builders import OWNER, step_input, token, with_history, with_snapshot
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import E18, LIMITS, market
from tests.support.perpetuals.books import with_market
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import book
from tests.support.perpetuals.values import OURS, USDC, WETH, step_with_margin
from tests.support.transactions import OTHER

UNIT = 10**6

# --- Expected funding

LONG_AND_SHORT = pair_book(10_000, 5 * E18, -333 * 10**15)
"""10,000 of ETH, and 9,990 of BTC sold."""
PAYING = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
"""Longs pay 0.1 % a day."""


@pytest.mark.parametrize(
    ("name", "horizon_s", "funding_raw"),
    [
        pytest.param("ETH", MONTH_S, 300 * E18, id="long pays"),
        pytest.param("ETH", 2 * MONTH_S, 600 * E18, id="long pays twice as long"),
        pytest.param("BTC", MONTH_S, -2_997 * E18 // 10, id="short receives"),
    ],
)
def test_expected_funding_of_all_is_signed_by_position(name: str, horizon_s: int, funding_raw: int) -> None:
    margin_account = with_market(LONG_AND_SHORT, name, funding_daily=Fraction(1, 1_000))

    assert expected_funding_of_all(margin_account, horizon_s) == funding_raw


@pytest.mark.parametrize(
    ("notional", "funding", "cost_share"),
    [(3_000, 30, Fraction(1, 100)), (-3_000, -30, Fraction(0)), (0, 0, Fraction(0))],
    ids=["long", "short", "nothing"],
)
def test_funding_cost_share_of_what_receives_is_zero(notional: int, funding: int, cost_share: Fraction) -> None:
    assert expected_funding(PAYING, Fraction(notional), 10 * DAY_S) == funding
    assert funding_cost_share(PAYING, Fraction(notional), 10 * DAY_S) == cost_share


def test_funding_cost_share_of_a_paying_short_is_positive() -> None:
    assert funding_cost_share(replace(PAYING, funding_daily=Fraction(-1, 1_000)), Fraction(-3_000), 10 * DAY_S) == Fraction(1, 100)


# --- The margin account as a holding


BOOK = book(2_500)
RUINED = margin.with_moved_marks(book(1_000, 2 * E18), {"ETH": Fraction(-9, 10)})
"""A loss of 3,600 on 1,000."""


def step_with(margin_account: MarginAccount | None = BOOK, **policy_fields: Any) -> StepInput:
    """Return a step with other fields of its futures policy."""
    return with_policy(step_with_margin(margin_account), replace(OURS, **policy_fields))


def with_stale_read(step: StepInput, kind: StaleReadKind) -> StepInput:
    reading = replace(step.snapshot.layer(FuturesReading), stale_reads=(StaleRead(kind, "HTTP 503"),))
    return replace(step, snapshot=step.snapshot.with_layer(reading))


def quarantined(step: StepInput, symbol: str) -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(token(symbol).address, TokenFinding.CODE_CHANGED)])


@pytest.mark.parametrize(
    ("step", "holdings"),
    [
        pytest.param(step_with(), {USDC: 2_500 * UNIT}, id="value of the account"),
        pytest.param(step_with(RUINED), {USDC: 0}, id="account in debt"),
        pytest.param(step_with(trader=OWNER), {USDC: 2_500 * UNIT}, id="trader of this wallet"),
        pytest.param(step_with(trader=OTHER), {}, id="delegate"),
        pytest.param(step_with(collateral=""), {}, id="no collateral"),
        pytest.param(step_with(collateral=token("WBTC").address), {}, id="collateral that is no asset"),
        pytest.param(quarantined(step_with(), "USDC"), {}, id="collateral in quarantine"),
        pytest.param(quarantined(step_with(), "WETH"), {USDC: 2_500 * UNIT}, id="another asset in quarantine"),
        pytest.param(step_with(None), {}, id="unknown account"),
        pytest.param(with_policy(step_with(), None), {}, id="no futures"),
    ],
)
def test_margin_holdings_are_the_account_in_its_collateral(step: StepInput, holdings: dict[str, int]) -> None:
    assert margin_holdings(step) == holdings
    assert margin_value(step, {USDC: Fraction(2)}) == 2 * sum(holdings.values())
    assert margin_value(step, {}) == 0


@pytest.mark.parametrize(("in_weights", "outside_weights"), [(True, False), (False, True)])
def test_margin_holdings_count_in_weights_or_outside(in_weights: bool, outside_weights: bool) -> None:
    step = step_with(margin_in_weights=in_weights)

    assert margin_holdings_in_weights(step) == ({USDC: 2_500 * UNIT} if in_weights else {})
    assert margin_holdings_outside_weights(step) == ({USDC: 2_500 * UNIT} if outside_weights else {})


@pytest.mark.parametrize(("trader", "is_delegate"), [("", False), (OWNER, False), (OTHER, True)], ids=["none", "owner", "another"])
def test_delegate_wallet_trades_for_another(trader: str, is_delegate: bool) -> None:
    step = step_with(trader=trader)

    assert is_delegate_wallet(step.snapshot, futures_policy(step)) is is_delegate
    assert not is_delegate_wallet(step.snapshot, None)


@pytest.mark.parametrize(
    ("step", "account_reason", "margin_reason"),
    [
        pytest.param(step_with(), "", "", id="known"),
        pytest.param(step_with(None), "the margin account was not read", "the margin account was not read", id="not read"),
        pytest.param(with_snapshot(step_with(None), futures_unknown="HTTP 503"), "HTTP 503", "HTTP 503", id="unknown"),
        pytest.param(with_stale_read(step_with(), StaleReadKind.TRANSFERS), "", "transfers: HTTP 503", id="transfers may miss"),
        pytest.param(with_stale_read(step_with(), StaleReadKind.FUNDING), "", "funding payments: HTTP 503", id="funding may miss"),
        pytest.param(with_stale_read(step_with(), StaleReadKind.ORDERS), "", "", id="orders may be old"),
        pytest.param(with_snapshot(step_with(None, trader=OTHER), futures_unknown="HTTP 503"), "HTTP 503", "", id="unknown to a delegate"),
        pytest.param(with_policy(step_with(None), None), "", "", id="no futures"),
    ],
)
def test_margin_fault_is_of_the_account_or_its_books(step: StepInput, account_reason: str, margin_reason: str) -> None:
    policy = futures_policy(step)

    assert (account_fault(step.snapshot, policy), margin_fault(step.snapshot, policy)) == (account_reason, margin_reason)
    assert unknown_margin_reason(step) == (f"the margin account is unknown: {margin_reason}" if margin_reason else "")


GAINED = margin.with_moved_marks(replace(book(2_500, E18), realised_raw=7), {"ETH": Fraction(1, 10)})
OWING = replace(GAINED, positions=(replace(GAINED.positions[0], funding_pending_raw=50 * E18),))
"""A gain of 200 that owes 50 of funding."""


@pytest.mark.parametrize(
    ("step", "baseline"),
    [
        pytest.param(step_with(OWING), MarginBaseline(2_500 * E18, 7, 150 * E18), id="profit less funding"),
        pytest.param(with_stale_read(step_with(OWING), StaleReadKind.FUNDING), None, id="funding may miss"),
        pytest.param(step_with(OWING, trader=OTHER), None, id="delegate"),
        pytest.param(step_with(None), None, id="unknown account"),
    ],
)
def test_margin_baseline_is_none_unless_the_account_counts(step: StepInput, baseline: MarginBaseline | None) -> None:
    assert margin_baseline(step) == baseline


EARLIER = MarginBaseline(2_500 * E18, 7, 50 * E18)


@pytest.mark.parametrize(
    ("step", "earlier", "result"),
    [
        pytest.param(step_with(OWING), EARLIER, 100 * UNIT, id="gain since the record"),
        pytest.param(step_with(OWING), None, 0, id="record without an account"),
        pytest.param(step_with(None), EARLIER, 0, id="unknown account"),
        pytest.param(with_policy(step_with(OWING), None), EARLIER, 0, id="no futures"),
    ],
)
def test_margin_result_is_the_gain_since_the_nav_record(step: StepInput, earlier: MarginBaseline | None, result: int) -> None:
    record = NavPerShare(Fraction(1), 0, (), (), margin=earlier)

    assert margin_result(with_history(step, nav_per_share=record), {USDC: Fraction(1)}) == result
    assert margin_result(step, {USDC: Fraction(1)}) == 0


# --- Spot beside futures


NONE_HELD = with_snapshot(step_with(), holdings=tuple(replace(holding, raw=0) for holding in step_with().snapshot.holdings))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(step_with(), "", id="certain"),
        pytest.param(
            replace(step_with(), exclusions=Exclusions(exits_only_reason="LINK has no price")), "LINK has no price", id="left out"
        ),
        pytest.param(step_with(trader=OTHER), f"the portfolio of {OTHER} is not read", id="delegate"),
        pytest.param(quarantined(step_with(), "WETH"), "WETH is in quarantine", id="quarantine"),
        pytest.param(quarantined(NONE_HELD, "WETH"), "", id="quarantine of what is not held"),
    ],
)
def test_spot_value_is_uncertain_beside_what_counts_as_zero(step: StepInput, reason: str) -> None:
    assert uncertain_spot_reason(step) == reason


def test_spot_portfolio_value_leaves_the_margin_account_out() -> None:
    assert spot_portfolio_value(current_drifts(step_with(book(10_000)))) == 10_000 * UNIT


def drift(address: str, symbol: str, price: Fraction, coins: int) -> AssetDrift:
    return AssetDrift(
        address, symbol, 1, 1, price, Fraction(coins * UNIT), Fraction(1, 2), 5_000, 5_000, 0, Fraction(0), Fraction(10_000), False
    )


DRIFTS = (drift(WETH, "WETH", Fraction(3_000, 10**12), 4_200), drift(USDC, "USDC", Fraction(1), 1_000))
HALF_PRICED = (DRIFTS[0], replace(DRIFTS[1], price=Fraction(1, 2)))
POLICY = FuturesPolicy((), 20_000, 500, LIMITS, collateral=USDC)


def perp_market(name: str, asset: str, mark: int) -> PerpMarket:
    price = Fraction(mark)
    return PerpMarket(
        market=name,
        symbol=name.upper(),
        asset=asset,
        size_decimals=18,
        lot_raw=1,
        tiers=(),
        fee_ppm=1_000,
        mark=price,
        index=price,
        index_s=0,
        funding_daily=Fraction(0),
    )


LONG = Position("eth", E18 // 2, -1_500 * E18)
ACCOUNT = MarginAccount(
    Token("0x", "USD", 18), 10**12, 300 * E18, 0, (LONG, Position("btc", -E18 // 100, 600 * E18)),
    (perp_market("eth", WETH, 3_000), perp_market("btc", "", 60_000), perp_market("eth2", WETH, 3_000)),
)  # fmt: skip
"""300 of collateral; 1,500 long of ETH, whose asset is WETH, and 600 short of BTC, which has none."""


@pytest.mark.parametrize(
    ("drifts", "rate", "value"),
    [
        pytest.param(DRIFTS, 10**12, 5_200 * E18, id="at the peg"),
        pytest.param(HALF_PRICED, 2 * 10**12, 10_400 * E18, id="at half of it"),
        pytest.param(DRIFTS[:1], None, None, id="no price"),
    ],
)
def test_spot_value_is_quoted_at_the_collateral_s_price(drifts: Sequence[AssetDrift], rate: int | None, value: int | None) -> None:
    assert quote_rate(ACCOUNT, POLICY, drifts) == rate
    assert spot_value_raw(ACCOUNT, POLICY, drifts) == value


SHORT_OF_BTC = PriceExposure("", "BTC", Fraction(0), Fraction(-600 * UNIT))
DOUBLED = replace(ACCOUNT, positions=(*ACCOUNT.positions, replace(LONG, market="eth2")))


@pytest.mark.parametrize(
    ("margin_account", "policy", "spot_of_usdc", "futures_of_weth"),
    [
        pytest.param(ACCOUNT, POLICY, 1_000, 1_500, id="margin in the weights"),
        pytest.param(ACCOUNT, replace(POLICY, margin_in_weights=False), 1_300, 1_500, id="margin beside the weights"),
        pytest.param(DOUBLED, POLICY, 1_000, 3_000, id="two markets of an asset"),
    ],
)
def test_exposures_pair_markets_with_assets(
    margin_account: MarginAccount, policy: FuturesPolicy, spot_of_usdc: int, futures_of_weth: int
) -> None:
    weth, usdc, btc = exposures(margin_account, policy, DRIFTS)

    assert weth == PriceExposure(WETH, "", Fraction(4_200 * UNIT), Fraction(futures_of_weth * UNIT))
    assert usdc == PriceExposure(USDC, "", Fraction(spot_of_usdc * UNIT), Fraction(0))
    assert btc == SHORT_OF_BTC
    assert weth.net == (4_200 + futures_of_weth) * UNIT


def test_exposures_are_empty_without_a_price_of_the_collateral() -> None:
    assert exposures(ACCOUNT, POLICY, DRIFTS[:1]) == ()


@pytest.mark.parametrize(
    ("step", "leverage", "margin_share"),
    [
        pytest.param(step_with(book(10_000)), 2, Fraction(1, 4), id="a quarter of the capital"),
        pytest.param(step_with(book(10_000), configured_leverage_bps=30_000, leverage_bps=0), 3, Fraction(1, 4), id="configured leverage"),
        pytest.param(step_with(RUINED), 2, 0, id="account in debt"),
    ],
)
def test_market_terms_count_margin_as_its_part_of_all_capital(step: StepInput, leverage: int, margin_share: Fraction) -> None:
    terms = market_terms(step, Fraction(30_000 * UNIT))

    assert (terms.leverage, terms.margin_share) == (leverage, margin_share)
    assert (terms.prices, terms.funding_daily) == ({"ETH": 2_000}, {"ETH": 0})


@pytest.mark.parametrize("step", [step_with(None), step_input()], ids=["unknown account", "no futures"])
def test_market_terms_are_none_without_an_account(step: StepInput) -> None:
    assert market_terms(step, Fraction(0)) is None
