"""Reference prices of the past: which are written down, one per token and hour, for how long, and how far back a step looks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution.bookkeeping import record_hourly_prices
from agent.execution.step_context import StepReaders
from agent.model import FeedRound, Head, PastPrices, PricePoint, StepInput
from agent.reference import reference_prices
from agent.reference.checks import confirmed_prices, round_price
from agent.store import Store
from agent.store.prices import RETENTION_S
from tests.support.builders import NOW_S, address, step_input, v2_pool, v3_pool, with_snapshot
from tests.support.constants import DAY_S, HOUR_S
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.tokens import USDC, WBTC, WETH

store = store_fixture("file", wallet=address("owner"))


def point(at_s: int, usd: int = 2_000, of: str = WETH.address) -> PricePoint:
    return PricePoint(of, at_s, Fraction(usd, 10**12))


def answers(step: StepInput, factor: Fraction) -> tuple[FeedRound, ...]:
    """The feeds of the step, that of the numeraire as it is, the others times `factor`."""
    unit = step.portfolio.feed(USDC.address)
    return tuple(feed if feed.feed == unit else replace(feed, answer=int(feed.answer * factor)) for feed in step.snapshot.feeds)


def before(step: StepInput, factors: list[Fraction]) -> tuple[PastPrices, ...]:
    head = step.snapshot.head
    return tuple(
        PastPrices(replace(head, number=head.number - back), answers(step, factor), step.snapshot.pools)
        for back, factor in enumerate(factors, 1)
    )


def confirming(blocks: int) -> StepInput:
    step = step_input()
    return replace(step, policy=replace(step.policy, confirm_blocks=blocks))


def test_reference_price__is_recorded_and_the_numeraire_s_not() -> None:
    step = step_input()
    (price_point,) = confirmed_prices(step, (), NOW_S)
    assert price_point == PricePoint(WETH.address, NOW_S, reference_prices(step).reference_by_token[WETH.address].price)


def test_price_of_one_block_alone__is_not_recorded() -> None:
    pushed = confirming(2)
    pushed = replace(pushed, snapshot=replace(pushed.snapshot, feeds=answers(pushed, Fraction(3))))
    (price_point,) = confirmed_prices(pushed, before(step_input(), [Fraction(1), Fraction(1)]), NOW_S)
    assert price_point.price == reference_prices(step_input()).reference_by_token[WETH.address].price


@pytest.mark.parametrize("gap", ["none", "too few", "another block"])
def test_unknown_earlier_blocks__record_nothing(gap: str) -> None:
    step = confirming(2)
    past = before(step, [Fraction(1)] * 2)
    if gap == "another block":
        past = (past[0], replace(past[1], head=replace(past[1].head, number=past[1].head.number - 1)))
    assert confirmed_prices(step, {"none": (), "too few": past[:1], "another block": past}[gap], NOW_S) == ()


def test_while_the_sequencer_is_down_no_price_is_recorded() -> None:
    feed = address("sequencer uptime feed")
    step = step_input()
    step = replace(step, reference=replace(step.reference, sequencer_feed=feed, sequencer_grace_s=HOUR_S))
    for answer, count in ((1, 0), (0, 1)):
        feed_round = FeedRound(feed, 0, 3, answer, NOW_S - HOUR_S, NOW_S - HOUR_S, 3)
        assert len(confirmed_prices(with_snapshot(step, feeds=(*step.snapshot.feeds, feed_round)), (), NOW_S)) == count


@pytest.mark.parametrize(("mean", "count"), [(2_000, 1), (2_500, 0)])
def test_contradicting_sources__record_no_price(mean: int, count: int) -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, twap_price=mean)])
    assert len(confirmed_prices(step, (), NOW_S)) == count


@pytest.mark.parametrize(
    ("now", "earlier", "median"),
    [
        pytest.param(1, [2], 1, id="two rising"),
        pytest.param(2, [1], 1, id="two falling"),
        pytest.param(1, [2, 3], 2, id="three rising"),
        pytest.param(3, [1, 2], 2, id="three falling"),
        pytest.param(1, [2, 3, 4], 2, id="four rising"),
        pytest.param(4, [3, 2, 1], 2, id="four falling"),
        pytest.param(5, [1, 4, 2, 3], 3, id="five"),
    ],
)
def test_the_recorded_price_is_the_lower_median_of_the_blocks(now: int, earlier: list[int], median: int) -> None:
    step = confirming(len(earlier))
    usual = reference_prices(step).reference_by_token[WETH.address].price
    step = with_snapshot(step, feeds=answers(step, Fraction(now)))
    (price_point,) = confirmed_prices(step, before(step_input(), [Fraction(snapshot) for snapshot in earlier]), NOW_S)
    assert price_point.price == usual * median


def test_blocks_before_those_that_confirm_do_not_count() -> None:
    step = confirming(2)
    usual = reference_prices(step).reference_by_token[WETH.address].price
    (recorded,) = confirmed_prices(step, before(step_input(), [Fraction(factor) for factor in (1, 1, 9, 9, 9)]), NOW_S)
    assert recorded.price == usual


def test_token_without_a_price_in_one_block__is_left_out() -> None:
    step = confirming(1)
    silent = replace(before(step, [Fraction(1)])[0], feeds=())
    assert confirmed_prices(step, (silent,), NOW_S) == ()


def test_prices_of_pools_are_kept_to_eighteen_figures() -> None:
    third = round_price(Fraction(2_000, 3))
    assert abs(third / Fraction(2_000, 3) - 1) <= Fraction(1, 10**17)
    assert round_price(third) == third
    assert round_price(Fraction(2_000, 10**12)) == Fraction(2_000, 10**12)


def test_the_first_price_of_an_hour_stays_and_each_hour_has_one(store: Store) -> None:
    start = NOW_S // HOUR_S * HOUR_S
    assert store.prices.record(USDC.address, [point(start, 2_000), point(start + 5, 9_000)]) == 1
    assert store.prices.record(USDC.address, [point(start + HOUR_S - 1, 3_000)]) == 0
    assert store.prices.record(USDC.address, [point(start + HOUR_S, 2_100)]) == 1
    assert store.prices.prices_between(USDC.address, start, start + DAY_S) == (point(start, 2_000), point(start + HOUR_S, 2_100))
    assert store.prices.has_cycle_prices(USDC.address, start + 1_800)
    assert not store.prices.has_cycle_prices(USDC.address, start + 2 * HOUR_S)


def test_prices_of_another_numeraire_are_other_prices(store: Store) -> None:
    store.prices.record(USDC.address, [point(NOW_S)])
    assert store.prices.prices_between(WBTC.address, 0, NOW_S) == ()
    assert store.prices.record(WBTC.address, [point(NOW_S, 1)]) == 1


def test_prices__are_kept_for_a_bounded_time(store: Store) -> None:
    store.prices.record(USDC.address, [point(NOW_S - RETENTION_S), point(NOW_S - RETENTION_S + 2 * DAY_S)])
    store.prices.record(USDC.address, [point(NOW_S + DAY_S)])
    assert [price_point.at_s for price_point in store.prices.prices_between(USDC.address, 0, NOW_S + DAY_S)] == [
        NOW_S - RETENTION_S + 2 * DAY_S,
        NOW_S + DAY_S,
    ]
    far = NOW_S + 10 * RETENTION_S
    assert store.prices.record(USDC.address, [point(far), point(NOW_S - RETENTION_S)], "import") == 1, "no file makes the agent forget"
    assert point(NOW_S + DAY_S) in store.prices.prices_between(USDC.address, 0, far)


def test_a_coarser_look_takes_the_last_price_of_each_interval(store: Store) -> None:
    start = NOW_S // DAY_S * DAY_S
    store.prices.record(USDC.address, [point(start + hour * HOUR_S, 2_000 + hour) for hour in range(48)])
    daily = store.prices.prices_between(USDC.address, start, start + 2 * DAY_S, DAY_S)
    assert daily == (point(start + 23 * HOUR_S, 2_023), point(start + 47 * HOUR_S, 2_047))


def test_source_s_prices__can_be_forgotten_and_are_shown_apart(store: Store) -> None:
    store.prices.record(USDC.address, [point(NOW_S)])
    store.prices.record(USDC.address, [point(NOW_S - DAY_S), point(NOW_S)], "import")
    spans = {
        (price_span.source, price_span.hour_count, price_span.from_s, price_span.until_s) for price_span in store.prices.spans(USDC.address)
    }
    assert spans == {("look", 1, NOW_S, NOW_S), ("import", 1, NOW_S - DAY_S, NOW_S - DAY_S)}
    assert store.prices.forget(USDC.address, "import") == 1
    assert store.prices.prices_between(USDC.address, 0, NOW_S) == (point(NOW_S),)


@pytest.mark.parametrize("text", ["0/1", "-3/2", "many"])
def test_a_damaged_price_is_for_the_operator(store: Store, text: str) -> None:
    store.prices.record(USDC.address, [point(NOW_S)])
    with store.db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prices SET price = ?", (text,))
    with raises_code(OperatorNeeded, "damaged", "is damaged", "price"):
        store.prices.prices_between(USDC.address, 0, NOW_S)


def test_old_stored_step__has_no_prices_and_a_new_one_keeps_them() -> None:
    step = step_input()
    step = replace(step, history=replace(step.history, prices=(point(NOW_S),)))
    assert codec.loads(StepInput, codec.dumps(step)) == step


def test_a_price_as_old_as_prices_are_kept_is_not_recorded(store: Store) -> None:
    points = [point(NOW_S), point(NOW_S - RETENTION_S), point(NOW_S - RETENTION_S + 1)]
    assert store.prices.record(USDC.address, points) == 2
    assert [price.at_s for price in store.prices.prices_between(USDC.address, 0, NOW_S)] == [NOW_S - RETENTION_S + 1, NOW_S]


def test_prices__are_read_with_both_ends_included(store: Store) -> None:
    first = NOW_S // HOUR_S * HOUR_S + 1_000
    last = NOW_S // HOUR_S * HOUR_S + HOUR_S + 1_000
    store.prices.record(USDC.address, [point(first), point(last)])
    assert [price.at_s for price in store.prices.prices_between(USDC.address, first, last)] == [first, last]
    assert store.prices.prices_between(USDC.address, first + 1, last - 1) == ()


def test_imported_price__is_no_cycle_and_is_forgotten_alone(store: Store) -> None:
    assert store.prices.record(USDC.address, [point(NOW_S)], "file") == 1
    assert not store.prices.has_cycle_prices(USDC.address, NOW_S)
    assert store.prices.record(USDC.address, [point(NOW_S + HOUR_S)]) == 1
    assert store.prices.has_cycle_prices(USDC.address, NOW_S + HOUR_S)
    assert [(span.source, span.hour_count, span.from_s, span.until_s) for span in store.prices.spans(USDC.address)] == [
        ("file", 1, NOW_S, NOW_S),
        ("look", 1, NOW_S + HOUR_S, NOW_S + HOUR_S),
    ]
    assert store.prices.forget(USDC.address, "file") == 1
    assert store.prices.prices_between(USDC.address, 0, 2 * NOW_S) == (point(NOW_S + HOUR_S),)


class PastReader:
    """Reads the blocks before of a step, or fails with an error, and notes how many blocks it was asked for."""

    def __init__(self, past: tuple[PastPrices, ...] = (), error: Exception | None = None) -> None:
        self.past = past
        self.error = error
        self.counts: list[int] = []

    def past_prices(self, _head: Head, count: int) -> tuple[PastPrices, ...]:
        self.counts.append(count)
        if self.error is not None:
            raise self.error
        return self.past[:count]


def hourly(store: Store, step: StepInput, reader: PastReader) -> tuple[PricePoint, ...]:
    """Return all recorded prices after a cycle."""
    nothing: Any = None
    source: Any = reader
    readers = StepReaders(source, nothing, nothing, nothing, nothing, nothing)
    record_hourly_prices(readers, step, store.prices)
    return store.prices.prices_between(USDC.address, 0, 2**40)


FAIR = [Fraction(1), Fraction(1)]


def test_hourly__first_cycle_of_an_hour_records_the_price(store: Store) -> None:
    step = confirming(2)
    assert hourly(store, step, PastReader(before(step, FAIR))) == confirmed_prices(step, before(step, FAIR), NOW_S)


def test_hourly__blocks_before_are_read_once_an_hour(store: Store) -> None:
    step = confirming(2)
    reader = PastReader(before(confirming(2), FAIR))
    hourly(store, step, reader)
    hourly(store, step, reader)
    assert reader.counts == [2]


@pytest.mark.parametrize(("known", "counts"), [(1, [2]), (2, []), (3, [])])
def test_hourly__known_earlier_blocks_are_not_read_again(store: Store, known: int, counts: list[int]) -> None:
    step = confirming(2)
    reader = PastReader(before(confirming(2), FAIR))
    hourly(store, with_snapshot(step, past_prices=before(step, [Fraction(1)] * known)), reader)
    assert reader.counts == counts


@pytest.mark.parametrize("error", [Retryable("no answer"), Refused("no majority")])
def test_hourly__unreadable_earlier_blocks_leave_no_price(store: Store, error: Exception) -> None:
    assert hourly(store, confirming(2), PastReader(error=error)) == ()
