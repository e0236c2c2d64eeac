"""A dollar that leaves its peg halts all trading, and counts as back only well within the limit; two sources that differ halt by name."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.figures import reader_text
from agent.model import Halt, HaltCode, Hold, PriceSource, Rebalance, StepInput
from agent.policy.decide import decide
from agent.reference import (
    depegged_tokens,
    late_twap_tokens,
    price_fault,
    price_inputs,
    reference_prices,
    source_conflict,
    source_deviations,
)
from agent.store import open_store
from agent.units import BPS
from tests.support.builders import NOW_S, address, history, step_input, token, v2_pool, v3_pool, with_feed, with_limits, without_feed
from tests.support.plans import sell_weth, verdict
from tests.support.text import mentions
from tests.support.tokens import LINK, USDC, WETH

DAI = token("DAI")
CENT = 10**6
"""A hundredth of a dollar as a feed of eight decimals says it."""
OFF_TARGET = {"WETH": 7_000, "USDC": 3_000}


def at(cents: float, left: bool = False) -> StepInput:
    """A portfolio that would be rebalanced, USDC at so many cents; `left` says that it was off its peg before."""
    past = history(depegged_tokens=(USDC.address,) if left else ())
    step = step_input(values=OFF_TARGET, kinds=[PriceSource.FEED], past=past)
    return with_feed(step, "USDC", answer=round(cents * CENT))


def off(step: StepInput) -> tuple[str, ...]:
    return depegged_tokens(step, reference_prices(step))


@pytest.mark.parametrize(
    ("cents", "is_outside"),
    [
        pytest.param(97.99, False, id="below the limit"),
        pytest.param(102.01, False, id="above the limit"),
        pytest.param(0.01, False, id="worthless"),
        pytest.param(98, True, id="left, at the limit"),
        pytest.param(98.99, True, id="left, above half of it"),
        pytest.param(101.01, True, id="left, beyond half above par"),
        pytest.param(50, True, id="left, far off"),
    ],
)
def test_depeg__begins_beyond_the_limit_and_goes_on_beyond_half(cents: float, is_outside: bool) -> None:
    step = at(cents, is_outside)
    decision = decide(step).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.DEPEG,)
    assert mentions(decision.reason, "USDC", "limits.depeg", "200 bps", "100 bps")
    assert off(step) == (USDC.address,)
    assert not verdict("depeg", step, sell_weth(step_input())).passed


@pytest.mark.parametrize(
    ("cents", "is_outside"),
    [
        pytest.param(100, False, id="at par"),
        pytest.param(98, False, id="at the lower limit"),
        pytest.param(102, False, id="at the upper limit"),
        pytest.param(99, True, id="left, back within half"),
        pytest.param(101, True, id="left, back above par"),
    ],
)
def test_depeg__is_none_up_to_the_limit_and_ends_within_half(cents: float, is_outside: bool) -> None:
    step = at(cents, is_outside)
    assert isinstance(decide(step).decision, Rebalance)
    assert off(step) == ()
    assert verdict("depeg", step, sell_weth(step_input())).passed


@given(st.lists(st.floats(95, 105), min_size=1, max_size=12))
def test_depeg__at_the_limit_neither_trades_nor_halts_in_turns(cents: list[float]) -> None:
    """Once off it is traded again only after it was within half of the limit."""
    is_outside = False
    for price in cents:
        step = at(round(price, 2), is_outside)
        distance = abs(round(price, 2) - 100)
        is_outside = bool(off(step))
        assert isinstance(decide(step).decision, Halt) is is_outside
        assert not (is_outside and distance <= 1)
        assert is_outside or distance <= 2.0001


@pytest.mark.parametrize(
    ("symbol", "price", "passed"),
    [
        pytest.param("DAI", Fraction(1, 2), False, id="DAI"),
        pytest.param("USDT", Fraction(1, 2), False, id="USDT"),
        pytest.param("crvUSD", Fraction(1, 2), False, id="crvUSD"),
        pytest.param("gho", Fraction(1, 2), False, id="gho"),
        pytest.param("LINK", Fraction(1, 2), True, id="LINK is no dollar"),
        pytest.param("EURC", Fraction(1, 2), True, id="EURC is no dollar"),
        pytest.param("sUSDe", Fraction(120, 100), False, id="sUSDe at 1.20 is a dollar"),
        pytest.param("sUSDe", Fraction(121, 100), True, id="sUSDe above 1.20 is a savings token"),
    ],
)
def test_depeg_knows_dollars_by_symbol(symbol: str, price: Fraction, passed: bool) -> None:
    step = step_input({"WETH": 4_000, symbol: 2_000, "USDC": 4_000}, prices={symbol: price, "WETH": 2_000, "USDC": 1})

    assert verdict("depeg", step, sell_weth(step)).passed is passed


def test_depeg__of_another_dollar_halts_and_of_no_dollar_not() -> None:
    for symbol, halts in (("DAI", True), ("LINK", False)):
        step = step_input(
            {"WETH": 4_000, symbol: 3_000, "USDC": 3_000}, prices={symbol: 1, "WETH": 2_000, "USDC": 1}, kinds=[PriceSource.FEED]
        )
        fallen = with_feed(step, symbol, answer=90 * CENT)
        assert isinstance(decide(fallen).decision, Halt) is halts
        assert off(fallen) == ((token(symbol).address,) if halts else ())


def test_while_its_price_is_unknown_who_left_stays_away() -> None:
    unknown = without_feed(replace(at(100, left=True), reference=replace(at(100).reference, sources=(PriceSource.SPOT,))), "USDC")
    assert off(unknown) == (USDC.address,)
    decision = decide(unknown).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.DEPEG,)
    assert mentions(decision.reason, "USDC", "unknown")
    gone = replace(at(100), history=history(depegged_tokens=(address("a token that is held no more"),)))
    assert off(without_feed(gone, "USDC")) == ()


def test_of_those_who_left_only_the_tokens_asked_for_are_named() -> None:
    step = step_input({"WETH": 4_000, "DAI": 3_000, "USDC": 3_000}, past=history(depegged_tokens=(USDC.address, DAI.address)))
    unknown = without_feed(step, "DAI")
    assert depegged_tokens(unknown, reference_prices(unknown), {DAI.address}) == (DAI.address,)


@pytest.mark.parametrize(
    ("cents", "was_off", "is_off"),
    [
        pytest.param(97, False, True, id="falls off"),
        pytest.param(100, True, False, id="returns"),
        pytest.param(100, False, False, id="stays"),
    ],
)
def test_peg_of_another_dollar_whose_price_is_unknown_hides_none(cents: int, was_off: bool, is_off: bool) -> None:
    past = history(depegged_tokens=(USDC.address,) if was_off else ())
    step = step_input({"WETH": 4_000, "DAI": 3_000, "USDC": 3_000}, past=past, kinds=[PriceSource.FEED])
    unknown = without_feed(with_feed(step, "USDC", answer=cents * CENT), "DAI")
    assert off(unknown) == ((USDC.address,) if is_off else ())


def test_price_fault__lost_peg__is_named() -> None:
    step = at(90)
    assert mentions(price_fault(step, reference_prices(step), {USDC.address}), "USDC has lost its peg")
    assert price_fault(step, reference_prices(step), {WETH.address}) == ""


def test_limit_off__halts_and_remembers_nothing() -> None:
    step = with_limits(at(50, left=True), depeg_bps=None)
    assert off(step) == ()
    assert isinstance(decide(step).decision, Rebalance)


def test_who_left_the_peg_is_known_to_a_new_start(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'trimtab.db'}"
    store = open_store(place, 31_337, address("owner"))
    assert store.budgets.history(NOW_S).depegged_tokens == ()
    store.budgets.mark_depegged([USDC.address, DAI.address])
    store.close()
    store = open_store(place, 31_337, address("owner"))
    assert store.budgets.history(NOW_S).depegged_tokens == (USDC.address, DAI.address)
    store.budgets.mark_depegged([])
    assert store.budgets.history(NOW_S).depegged_tokens == ()
    store.close()


# two sources
def mean_at(price: int, *kinds: PriceSource) -> StepInput:
    """Spot and feed at 2,000, the mean of the last half hour elsewhere."""
    pools = [v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, twap_price=price)]
    return step_input(values=OFF_TARGET, pools=pools, kinds=kinds or (PriceSource.FEED, PriceSource.TWAP))


@pytest.mark.parametrize("price", [2_032, 1_968])
def test_a_mean_that_is_off_its_feed_halts_by_name(price: int) -> None:
    decision = decide(mean_at(price)).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.ORACLE_DEVIATION,)
    assert mentions(decision.reason, "WETH", "limits.oracle_deviation", "150 bps")


@pytest.mark.parametrize("price", [2_000, 2_029, 1_971])
def test_a_mean_near_its_feed_halts_nothing(price: int) -> None:
    assert not isinstance(decide(mean_at(price)).decision, Halt)


def test_deviation_of_a_mean_is_a_share_of_its_feed() -> None:
    (off_by, token_address), *_ = sorted(source_deviations(price_inputs(mean_at(1_000))), reverse=True)
    assert (float(off_by), token_address) == (pytest.approx(0.5, abs=1e-4), WETH.address)


def falling(spot: int = 2_000, link_mean: Fraction | int = 1) -> StepInput:
    """WETH has fallen to its feed of 2,000 and the mean lags at 2,100; LINK has a feed of 1 and this mean."""
    pools = [
        v2_pool(WETH, USDC, spot, depth=1_000 * spot),
        replace(v3_pool(WETH, USDC, 2_000, twap_price=2_100, name="mean"), liquidity=0),
        v3_pool(LINK, USDC, 1, twap_price=link_mean),
    ]
    kinds = (PriceSource.FEED, PriceSource.TWAP)
    return step_input({"WETH": 6_000, "LINK": 1_000, "USDC": 3_000}, pools=pools, kinds=kinds, prices={"WETH": 2_000, "LINK": 1, "USDC": 1})


@pytest.mark.parametrize(("limit_bps", "is_late"), [(149, False), (150, True), (151, True)])
def test_late_mean__spot_at_the_limit_still_agrees_with_the_feed(limit_bps: int, is_late: bool) -> None:
    assert (WETH.address in late_twap_tokens(price_inputs(falling(spot=2_030)), limit_bps)) is is_late


def test_late_mean__holds_back_no_exit_but_a_rebalance() -> None:
    step = falling()
    assert "the mean of WETH" in source_conflict(step)
    assert source_conflict(step, of_exit=True) == ""


def test_late_mean__excuses_no_other_token() -> None:
    step = falling(link_mean=Fraction(98, 100))
    deviation = next(deviation for deviation, token_address in source_deviations(price_inputs(step)) if token_address == LINK.address)
    at_limit, beyond = (with_limits(step, oracle_deviation_bps=deviation * BPS - less) for less in (0, Fraction(1, 10**9)))
    assert source_conflict(at_limit, of_exit=True) == ""
    assert "the mean of LINK" in source_conflict(beyond, of_exit=True)


def test_conflict__reads_in_percent_and_never_as_its_limit() -> None:
    deviation, _ = max(source_deviations(price_inputs(falling())))
    assert 0 < deviation * BPS - 500 < 1
    conflict = source_conflict(with_limits(falling(), oracle_deviation_bps=500))
    assert mentions(reader_text(conflict), "is 5.01 % off its feed, limits.oracle_deviation is 5 %")


def test_lone_source__contradicts_nobody_and_the_limit_may_be_off() -> None:
    assert source_conflict(mean_at(3_000, PriceSource.FEED)) == ""
    assert source_conflict(with_limits(mean_at(3_000), oracle_deviation_bps=None)) == ""
    stale = with_feed(mean_at(3_000), "WETH", updated_at_s=NOW_S - 3_601)
    assert source_conflict(stale) == ""  # the mean alone is left; the age of the feed refuses every plan
    assert not verdict("feed_health", stale, sell_weth(step_input())).passed
    assert isinstance(decide(step_input()).decision, Hold)
