"""Whose means count: pools that were pinned, with the code that was pinned, that remember the window; others with their remedy."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4Pool
from agent.model import CodeHash, PriceSource, StepInput
from agent.reference import prices, reference_prices
from tests.support.builders import step_input, v3_pool
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

TRUE = v3_pool(WETH, USDC, 2_000)
FALSE = v3_pool(WETH, USDC, 4_000, depth=900_000_000, name="of a stranger")


def by_means(*pools: V3Pool, pins: tuple[CodeHash, ...] | None = None) -> StepInput:
    step = step_input(pools=pools, kinds=[PriceSource.TWAP])
    return replace(step, reference=replace(step.reference, twap_pools=pins))


def code_of(step: StepInput, pool: V3Pool) -> CodeHash:
    """What the snapshot says stands there."""
    return next(code for code in step.snapshot.code_hashes if code.address == pool.address)


def usd(step: StepInput) -> float | None:
    reference = reference_prices(step).reference_by_token.get(WETH.address)
    return None if reference is None else float(reference.price) * 10**12


def test_unpinned_pool__has_no_weight_however_deep() -> None:
    step = by_means(TRUE, FALSE)
    pinned = by_means(TRUE, FALSE, pins=(code_of(step, TRUE),))
    assert usd(step) == pytest.approx(4_000, rel=1e-2)  # nothing says which count: the deep one decides
    assert usd(pinned) == pytest.approx(2_000, rel=1e-3)


def test_nothing_pinned__counts_no_mean_and_says_the_remedy() -> None:
    step = by_means(TRUE, pins=())
    assert usd(step) is None
    (gap,) = [gap for gap in reference_prices(step).unpriced if gap.token == WETH.address]
    assert mentions(gap.why, f"{TRUE.address}", "not pinned", "trimtab trust")


def test_pool_of_other_code_than_pinned__does_not_count() -> None:
    step = by_means(TRUE, pins=(CodeHash(TRUE.address, "0x" + "ab" * 32),))
    assert usd(step) is None
    assert "differs from the pinned code" in prices.twap_rejection(step.snapshot, step.reference, TRUE)


@pytest.mark.parametrize(
    ("span_s", "reason"),
    [
        ((1, 1), "it keeps 1: run trimtab oracle"),
        ((5, 9), "it keeps 5, soon 9: run trimtab oracle"),
        ((1, 1_801), "it will keep 1801 observations, filled by the next trades"),
        (None, "less than 1800 s old"),
    ],
)
def test_pool_of_short_memory__is_named_with_what_would_help(span_s: tuple[int, int] | None, reason: str) -> None:
    short = replace(v3_pool(WETH, USDC, 2_000, window_s=None), observation_counts=span_s)
    step = by_means(short)
    why = prices.twap_rejection(step.snapshot, step.reference, short)
    assert reason in why
    assert ("--to 1801" in why) == ("trimtab oracle" in why)


def test_on_a_chain_of_slow_blocks_fewer_observations_are_enough() -> None:
    short = replace(v3_pool(WETH, USDC, 2_000, window_s=None), observation_counts=(1, 1))
    step = by_means(short)
    mainnet = replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, chain_id=1)))
    assert "--to 151" in prices.twap_rejection(mainnet.snapshot, mainnet.reference, short)


def test_v4_pool__has_no_mean_and_names_the_feed_needed() -> None:
    v4 = V4Pool(**{field.name: getattr(TRUE, field.name) for field in fields(TRUE)})
    (gap,) = [gap for gap in reference_prices(by_means(v4)).unpriced if gap.token == WETH.address]
    assert mentions(gap.why, v4.address, "records no observations", "give the token a price feed")
