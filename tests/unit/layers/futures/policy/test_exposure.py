"""Net exposure: what follows each price, spot and futures together, in the numeraire."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.policy import exposure
from agent.layers.futures.policy.exposure import expected_funding_of_all, exposures, quote_rate, spot_value_raw
from agent.model import AssetDrift
from agent.model.futures import (
    FuturesPolicy,
    MarginAccount,
    PerpMarket,
    Position,
)
from agent.policy.decide import current_drifts
from agent.units import Token
from tests.support.builders import token
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import E18, LIMITS, market
from tests.support.perpetuals.needs import UNIT, USDC, in_usdc, policy
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import OVER, book, step_of

COLLATERAL = "0xUSDC"
WETH = "0xWETH"
WAD = 10**18


def drift(token: str, symbol: str, price: Fraction, coins: Fraction) -> AssetDrift:
    value = coins * 10**6
    return AssetDrift(token, symbol, 1, 1, price, value, Fraction(1, 2), 5_000, 5_000, 0, Fraction(0), Fraction(10_000), False)


DRIFTS = (drift(WETH, "WETH", Fraction(3_000, 10**12), Fraction(4_200)), drift(COLLATERAL, "USDC", Fraction(1), Fraction(1_000)))
POLICY = FuturesPolicy((), 20_000, 500, LIMITS, collateral=COLLATERAL)


def perp_market(name: str, asset: str, mark: int) -> PerpMarket:
    price = Fraction(mark)
    return PerpMarket(name, name.upper(), asset, 18, 1, Fraction(1, WAD), (), 1_000, price, price, 0, Fraction(0))


ACCOUNT = MarginAccount(
    Token("0x", "USD", 18),
    10**12,
    0,
    0,
    (Position("eth", WAD // 2, -1_500 * WAD), Position("btc", -WAD // 100, 600 * WAD)),
    (perp_market("eth", WETH, 3_000), perp_market("btc", "", 60_000)),
)


def test_long__adds_to_its_asset_and_a_lone_market_has_a_line() -> None:
    exposure_by_asset = {
        price_exposure.symbol or price_exposure.token: (price_exposure.spot, price_exposure.futures, price_exposure.net)
        for price_exposure in exposures(ACCOUNT, POLICY, DRIFTS)
    }
    assert exposure_by_asset == {
        WETH: (4_200 * 10**6, 1_500 * 10**6, 5_700 * 10**6),
        COLLATERAL: (1_000 * 10**6, 0, 1_000 * 10**6),
        "BTC": (0, -600 * 10**6, -600 * 10**6),
    }


def test_the_spot_value_counts_in_the_quote() -> None:
    assert spot_value_raw(ACCOUNT, POLICY, DRIFTS) == 5_200 * WAD


def test_collateral_off_its_peg_counts_at_its_price() -> None:
    cheap = (DRIFTS[0], replace(DRIFTS[1], price=Fraction(1, 2)))
    assert quote_rate(ACCOUNT, POLICY, cheap) == 2 * 10**12
    assert spot_value_raw(ACCOUNT, POLICY, cheap) == 10_400 * WAD


def test_without_a_price_of_the_collateral_nothing_is_counted() -> None:
    assert spot_value_raw(ACCOUNT, POLICY, DRIFTS[:1]) is None
    assert exposures(ACCOUNT, POLICY, DRIFTS[:1]) == ()


def at_rates(eth: Fraction, btc: Fraction = Fraction(0)) -> MarginAccount:
    """10,000 long in ETH at 2,000 and 9,990 short in BTC at 30,000, of 10,000 of collateral."""
    margin_account = pair_book(10_000, eth=5 * WAD, btc=-333 * 10**15)
    rates = {"ETH": eth, "BTC": btc}
    return replace(margin_account, markets=tuple(replace(market, funding_daily=rates[market.market]) for market in margin_account.markets))


def test_expected_funding__is_a_cost_of_longs_and_income_of_shorts() -> None:
    """0.1 % a day for 30 days: the long pays 300, the short gets 299.70."""
    assert expected_funding_of_all(at_rates(Fraction(1, 1_000)), MONTH_S) == 300 * WAD
    assert expected_funding_of_all(at_rates(Fraction(0), Fraction(1, 1_000)), MONTH_S) == Fraction(-2_997 * WAD, 10)
    assert expected_funding_of_all(at_rates(Fraction(1, 1_000)), 2 * MONTH_S) == 600 * WAD


def test_expected_funding__is_the_rate_of_the_horizon_s_days() -> None:
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
    assert exposure.expected_funding(paying, Fraction(-3_000), 10 * exposure.DAY_S) == -30


def test_funding_cost__position_that_receives_costs_nothing() -> None:
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
    costs = [exposure.funding_cost_share(paying, Fraction(notional), 10 * exposure.DAY_S) for notional in (3_000, -3_000, 0)]
    assert costs == [Fraction(1, 100), 0, 0]


def test_spot_value__margin_account_is_no_part_of_it() -> None:
    step = step_of(in_usdc(OVER), policy())
    assert exposure.spot_portfolio_value(current_drifts(step)) == 10_000 * UNIT


def test_market_growth__margin_is_its_part_of_all_capital() -> None:
    step = step_of(in_usdc(book(10_000)), policy())
    growth = exposure.market_terms(step, Fraction(30_000 * UNIT))
    assert growth is not None
    assert growth.margin_share == Fraction(1, 4)


def test_exposures__long_adds_to_its_asset_margin_to_collateral() -> None:
    weth = token("WETH").address
    step = step_of(in_usdc(book(10_000, -2 * E18, asset=weth)), policy())
    margin_account = in_usdc(book(10_000, -2 * E18, asset=weth))
    values = {
        price_exposure.token: (price_exposure.spot / UNIT, price_exposure.futures / UNIT, price_exposure.net / UNIT)
        for price_exposure in exposure.exposures(margin_account, policy(), current_drifts(step))
    }
    assert values == {weth: (5_000, -4_000, 1_000), USDC: (15_000, 0, 15_000)}
