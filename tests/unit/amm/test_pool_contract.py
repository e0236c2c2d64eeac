"""The contract of a pool, held by every registered kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent import codec
from agent.amm import POOL_KIND_BY_CURVE_NAME, POOL_KINDS
from agent.amm.pools import marginal_price, price_move_bps, token_out
from agent.amm.swap_errors import ContractRevert
from agent.errors import ConfigError
from agent.model import Pool
from agent.planning.pool_curves import build_trade_curves
from agent.units import PIPS, Token
from tests.support.samples import examples

ADDRESS = f"0x{9:040x}"
POINTS = 40
forms = pytest.mark.parametrize("form", sorted(POOL_KINDS))
sides = st.booleans()
impacts = st.sampled_from([1, 30, 100, 1_000])


@dataclass(frozen=True)
class PoolSample:
    pool: Pool
    token_in: str

    @property
    def token_out(self) -> str:
        return token_out(self.pool, self.token_in)

    def paid(self, amount: int) -> int:
        """Output of an amount; nothing where the contract refuses so little."""
        try:
            return self.pool.swap(self.token_in, amount).amount_out_raw
        except ContractRevert:
            return 0


@st.composite
def pool_samples(draw: Callable[..., int], form: str) -> PoolSample:
    """A pool of the form with whole tokens of 6, 8 or 18 decimals, priced within 1:3, in one direction."""
    decimals = draw(st.sampled_from([6, 8, 18])), draw(st.sampled_from([6, 8, 18]))
    tokens = Token(f"0x{1:040x}", "A", decimals[0]), Token(f"0x{2:040x}", "B", decimals[1])
    whole = draw(st.integers(10**4, 10**9))
    price = Fraction(draw(st.integers(10**6, 3 * 10**6)), 10**6) ** draw(st.sampled_from([-1, 1]))
    ratio = price * Fraction(10) ** (decimals[1] - decimals[0])
    reserve0 = whole * 10 ** decimals[0]
    reserves = reserve0, math.floor(reserve0 * ratio)
    fee_pips = draw(st.sampled_from([100, 500, 3_000]))
    pool = POOL_KINDS[form].simulated(ADDRESS, tokens, ratio, reserves, fee_pips)
    return PoolSample(pool, tokens[draw(st.integers(0, 1))].address)


def part(sample: PoolSample, impact_bps: int, share: float) -> int:
    return max(1, int(sample.pool.max_in(sample.token_in, impact_bps) * share))


def test_every_form_of_a_back_test_is_a_kind() -> None:
    assert {"v2", "v3"} == set(POOL_KIND_BY_CURVE_NAME)
    assert set(POOL_KIND_BY_CURVE_NAME.values()) <= set(POOL_KINDS.values())


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.001, 1))
def test_quote_and_quoter_are_the_output_of_the_swap(form: str, data: st.DataObject, impact: int, share: float) -> None:
    sample = data.draw(pool_samples(form))
    amount = part(sample, impact, share)
    done = sample.pool.swap(sample.token_in, amount)
    assert sample.pool.quote(sample.token_in, amount) == sample.pool.quoter(sample.token_in)(amount) == done.amount_out_raw
    assert done.amount_in_raw == amount
    assert done.pool_after.kind == sample.pool.kind
    assert done.pool_after.address == sample.pool.address


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.001, 1), less=st.floats(0.01, 0.99))
def test_more_in_pays_more_and_never_above_the_marginal_price(
    form: str, data: st.DataObject, impact: int, share: float, less: float
) -> None:
    sample = data.draw(pool_samples(form))
    amount = part(sample, impact, share)
    assert sample.paid(max(1, int(amount * less))) <= sample.paid(amount)
    fee = sample.pool.fee_pips
    best = (amount - amount * fee // PIPS) * marginal_price(sample.pool, sample.token_in)
    assert sample.paid(amount) <= best
    small = part(sample, 1, 1)
    assert (
        sample.paid(small)
        >= small * Fraction(PIPS - fee, PIPS) * marginal_price(sample.pool, sample.token_in) * Fraction(9_998, 10_000) - 2
    )


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.001, 1))
def test_swap_and_swap_back_never_gains(form: str, data: st.DataObject, impact: int, share: float) -> None:
    sample = data.draw(pool_samples(form))
    amount = part(sample, impact, share)
    there = sample.pool.swap(sample.token_in, amount)
    try:
        back = there.pool_after.swap(sample.token_out, there.amount_out_raw)
    except ContractRevert:
        return
    assert back.amount_out_raw < amount


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.01, 0.99), cut=st.floats(0.1, 0.9))
def test_two_swaps_pay_no_more_than_one(form: str, data: st.DataObject, impact: int, share: float, cut: float) -> None:
    sample = data.draw(pool_samples(form))
    amount = part(sample, impact, share)
    first = max(1, int(amount * cut))
    assume(amount > first)
    first_swap = sample.pool.swap(sample.token_in, first)
    try:
        other = first_swap.pool_after.swap(sample.token_in, amount - first).amount_out_raw
    except ContractRevert:
        other = 0
    rounded_fees = 2 * marginal_price(sample.pool, sample.token_in)
    assert first_swap.amount_out_raw + other <= sample.paid(amount) + rounded_fees + 2


@forms
@given(data=st.data(), impact=impacts)
def test_max_in_is_the_last_that_keeps_to_the_impact(form: str, data: st.DataObject, impact: int) -> None:
    sample = data.draw(pool_samples(form))
    most = sample.pool.max_in(sample.token_in, impact)
    assert price_move_bps(sample.pool, sample.pool.swap(sample.token_in, most).pool_after, sample.token_in) <= impact
    further = most + max(2, most // 10**6)
    assert price_move_bps(sample.pool, sample.pool.swap(sample.token_in, further).pool_after, sample.token_in) > impact


@forms
@examples(15)
@given(data=st.data(), impact=impacts, off_bps=st.integers(-50, 300))
def test_best_response_beats_every_other_amount(form: str, data: st.DataObject, impact: int, off_bps: int) -> None:
    sample = data.draw(pool_samples(form))
    price = marginal_price(sample.pool, sample.token_in) * Fraction(10_000 - off_bps, 10_000)
    best = sample.pool.best_amount_in(sample.token_in, price, impact)
    most = sample.pool.max_in(sample.token_in, impact)
    assert 0 <= best <= most

    def gain(amount: int) -> Fraction:
        return sample.paid(amount) - amount * price if amount else Fraction(0)

    others = [most * point // POINTS for point in range(POINTS + 1)] + [best + step for step in (-2, -1, 1, 2) if 0 <= best + step <= most]
    assert max(map(gain, others)) <= gain(best) + 2 + 2 * price


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.001, 1))
def test_curve__is_concave_and_promises_no_less_than_paid(form: str, data: st.DataObject, impact: int, share: float) -> None:
    require_generous_curve(data.draw(pool_samples(form)), impact, share)


@forms
@pytest.mark.parametrize("impact", [1, 30, 100, 1_000])
def test_balanced_pool_s_curve__promises_no_less_to_its_end(form: str, impact: int) -> None:
    """There a stable curve is flattest: its price falls with the third power of the amount."""
    tokens = (Token(f"0x{1:040x}", "A", 6), Token(f"0x{2:040x}", "B", 6))
    reserve = 10**10
    pool = POOL_KINDS[form].simulated(ADDRESS, tokens, Fraction(1), (reserve, reserve), 100)
    for share in (0.01, 0.3, 0.999, 1.0):
        require_generous_curve(PoolSample(pool, tokens[0].address), impact, share)


def require_generous_curve(sample: PoolSample, impact: int, share: float) -> None:
    """The curve is concave, and pays for a share of the largest input no less than the pool and hardly more."""
    pool = sample.pool
    token_in = sample.token_in
    curve = pool.curve(token_in, impact)
    assert len(curve.roots) == len(curve.liquidities) + 1
    assert all(high >= low > 0 for high, low in zip(curve.roots, curve.roots[1:], strict=False))
    assert all(depth >= 0 for depth in curve.liquidities)
    price = marginal_price(pool, token_in)
    most = pool.max_in(token_in, impact)
    scale = float(most)
    offer = build_trade_curves(pool, token_in, Fraction(1), 1 / price, scale, impact)
    amount = part(sample, impact, share)
    promised = offer.real_curve.output_for(amount / scale) * scale
    assert promised * (1 + 1e-9) + 3 * float(1 / price) + 3 >= float(sample.paid(amount) / price)
    assert promised <= float(sample.paid(amount) / price) * (1 + 1e-5) + 3 * float(1 / price) + 3


@forms
@given(data=st.data(), impact=impacts, share=st.floats(0.1, 1))
def test_recovered_pool_is_back_at_its_price(form: str, data: st.DataObject, impact: int, share: float) -> None:
    sample = data.draw(pool_samples(form))
    moved = sample.pool.swap(sample.token_in, part(sample, impact, share)).pool_after
    assert sample.pool.partly_recovered(sample.pool, Fraction(1, 2)) == sample.pool
    assert price_move_bps(sample.pool, moved.partly_recovered(sample.pool, Fraction(0)), sample.token_in) <= 1
    half = moved.partly_recovered(sample.pool, Fraction(1, 2))
    prices = [marginal_price(pool, sample.token_in) for pool in (moved, half, sample.pool)]
    assert prices == sorted(prices)


@forms
@given(data=st.data())
def test_state_survives_json_and_names_its_kind(form: str, data: st.DataObject) -> None:
    pool = data.draw(pool_samples(form)).pool
    assert codec.loads(Pool, codec.dumps(pool)) == pool
    assert POOL_KINDS[pool.venue] is type(pool)
    assert pool.has_price
    assert not pool.is_empty
    assert not pool.fault
    assert {"rebalancer"} <= set(pool.gas.swap_units_by_router) <= {"swap_router_02", "rebalancer"}
    for token in (pool.token0, pool.token1):
        assert pool.depth(token) > 0
        assert pool.spot_depth(token) > 0
    for ask in (pool.depth, pool.price_terms, partial(pool.quote, amount_in_raw=1), partial(pool.max_in, impact_bps=1)):
        with pytest.raises(ConfigError, match="is not in pool"):
            ask(ADDRESS)
