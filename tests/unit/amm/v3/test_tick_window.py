"""Where the ticks read end: said exactly where knowing more would let a pool take more, and deepened only by the same pool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.pool import V3Pool
from agent.model import Leg, LegPlace
from agent.planning.rounding import pools_out_of_ticks
from agent.reference.floors import UNBOUNDED_BPS
from tests.support.amm_pools import POOL, TOKEN0, TOKEN1, tokens, v3_pools, with_known_ticks

impacts = st.sampled_from([1, 50, 200, 1_000, 5_000, UNBOUNDED_BPS])


@given(v3_pools(moderate=True), st.integers(0, 20_000), st.integers(0, 20_000), tokens, impacts)
def test_where_the_ticks_do_not_end_more_of_them_change_nothing(whole: V3Pool, below: int, above: int, token: str, impact_bps: int) -> None:
    pool = with_known_ticks(whole, below, above)
    assert not whole.exceeds_known_ticks(token, impact_bps)
    if not pool.exceeds_known_ticks(token, impact_bps):
        assert pool.max_in(token, impact_bps) == whole.max_in(token, impact_bps)


def leg(token_in: str, amount_raw: int) -> Leg:
    token_out = TOKEN1 if token_in == TOKEN0 else TOKEN0
    return Leg(POOL, "uniswap_v3", token_in, token_out, 3_000, amount_raw, 1, 1, 0, 0, LegPlace.WALLET, LegPlace.WALLET)


@given(v3_pools(moderate=True), tokens, impacts)
def test_legs_are_at_the_end_only_where_they_fill_what_is_known(whole: V3Pool, token: str, impact_bps: int) -> None:
    pool = with_known_ticks(whole, 300, 300)
    most = pool.max_in(token, impact_bps)
    if most > 10_000 and pool.exceeds_known_ticks(token, impact_bps):
        halves = [leg(token, most // 2), leg(token, most - most // 2)]
        assert pools_out_of_ticks({POOL: pool}, halves, impact_bps) == (POOL,)
        assert pools_out_of_ticks({POOL: pool}, halves[:1], impact_bps) == ()
    assert pools_out_of_ticks({POOL: whole}, [leg(token, most)], impact_bps) == ()
    assert pools_out_of_ticks({}, [leg(token, most)], impact_bps) == ()
