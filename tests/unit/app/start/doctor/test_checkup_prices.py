"""What the doctor says of triggers and schedules on chains where strangers trade, of sequencers, and of means that do not count."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from eth_abi import encode

from agent import wiring
from agent.app.documents.owner import FAIL, OK, WARN
from agent.app.start.doctor import price_source_checks
from agent.app.start.doctor.price_source_checks import UNBOUNDED_ANSWER, format_answer_bounds, price_checks
from agent.config.networks import NETWORKS, Network
from agent.model import (
    Cron,
    DataFeeQuote,
    Every,
    FeedRound,
    HybridTrigger,
    PriceSource,
    StepInput,
    Threshold,
    TickMean,
    Trigger,
    UnreadableItem,
)
from agent.model.rollups import DATA_FEE_ITEM
from tests.support.builders import NOW_S, address, step_input, token, v3_pool, with_snapshot
from tests.support.text import mentions

BAND = Threshold(None, 1_000)


def rows(step: StepInput, local: bool = False) -> dict[str, tuple[str, str, str]]:
    """(state, found, remedy) by check, of a portfolio without feeds: nothing is asked of a chain."""
    nothing: Any = SimpleNamespace(assets=(), hubs=())
    desk = SimpleNamespace(portfolio=nothing, transport=None, config=SimpleNamespace(chain=SimpleNamespace(is_local=local)))
    return {
        check_line[0]: check_line[1:] for check_line in price_checks(cast("wiring.Desk", desk), step.snapshot, step.policy, step.reference)
    }


def step_of(trigger: Trigger, confirm_blocks: int = 0, jitter_bps: int = 0) -> StepInput:
    step = step_input(kinds=[PriceSource.FEED])
    return replace(step, policy=replace(step.policy, trigger=trigger, confirm_blocks=confirm_blocks, jitter_bps=jitter_bps))


def test_trigger_of_one_block__is_warned_of_where_strangers_trade() -> None:
    status, why, remedy = rows(step_of(BAND))["triggers"]
    assert status is WARN
    assert "single block" in why
    assert remedy == "policy.confirm_blocks = 3"
    assert "triggers" not in rows(step_of(BAND), local=True)
    assert "triggers" not in rows(step_of(BAND, confirm_blocks=1))


@pytest.mark.parametrize("trigger", [Every(86_400), Cron("0 9 * * *", "UTC"), HybridTrigger(BAND, Every(86_400))])
def test_a_schedule_that_everybody_can_foresee_is_warned_of(trigger: Trigger) -> None:
    assert rows(step_of(trigger))["schedule"][0] == WARN
    assert "schedule" not in rows(step_of(trigger, jitter_bps=1))
    assert "schedule" not in rows(step_of(BAND))


def test_the_sequencer_has_a_row_where_it_is_watched() -> None:
    feed = address("uptime")
    step = step_of(BAND)
    watched = replace(step, reference=replace(step.reference, sequencer_feed=feed, sequencer_grace_s=3_600))
    for answer, state in ((0, OK), (1, FAIL)):
        feed_round = FeedRound(feed, 0, 1, answer, NOW_S - 7_200, NOW_S - 7_200, 1)
        assert rows(with_snapshot(watched, feeds=(feed_round,)))["sequencer"][0] == state
    assert "sequencer" not in rows(step)


def test_the_data_fee_has_a_row_on_rollups() -> None:
    step = step_of(BAND)
    assert "data_fee" not in rows(step)
    known = rows(with_snapshot(step, data_fee=DataFeeQuote(10**12, 10**15)))["data_fee"]
    assert known[0] == OK
    assert "at most 0.0000104" in known[1]
    unread = UnreadableItem(DATA_FEE_ITEM, address("oracle"), "there is no contract at this address")
    assert rows(with_snapshot(step, unreadable_items=(unread,)))["data_fee"][0] == FAIL


def test_feed_bounds__are_shown_and_a_boundless_is_none() -> None:
    feed_round = FeedRound(address("feed"), 8, 1, 10**8, NOW_S, NOW_S, 1)
    assert mentions(format_answer_bounds(feed_round), "no bounds")
    assert format_answer_bounds(replace(feed_round, min_answer=10**6, max_answer=10**11)) == "from 0.01 to 1000"
    assert mentions(format_answer_bounds(replace(feed_round, min_answer=1, max_answer=UNBOUNDED_ANSWER)), "0.00000001", "no upper bound")
    assert format_answer_bounds(replace(feed_round, min_answer=1, max_answer=UNBOUNDED_ANSWER - 1)).startswith(
        "from 0.00000001 to 39614081"
    )


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_network_feeds__are_known_by_their_names(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """WPOL has MATIC / USD, BTCB BTC / USD, USDT0 USDT / USD; a feed of another coin, or not in dollars, is warned of."""
    tokens = {token.address: token for token in network.tokens if token.priced_as is not None}
    assets = [SimpleNamespace(token=SimpleNamespace(address=token.address, label=token.symbol)) for token in tokens.values()]
    feeds = {at: network.feed_of(token) for at, token in tokens.items()}
    step = step_of(BAND)
    step = with_snapshot(step, feeds=tuple(FeedRound(str(feed), 8, 1, 10**8, NOW_S, NOW_S, 1) for feed in feeds.values()))
    portfolio: Any = SimpleNamespace(assets=assets, hubs=(), feed=feeds.get)
    chain = SimpleNamespace(is_local=True, chain_id=network.chain_id)
    desk = SimpleNamespace(portfolio=portfolio, transport=None, config=SimpleNamespace(chain=chain))

    def states(names: list[str]) -> set[str]:
        monkeypatch.setattr(price_source_checks, "query_lens", lambda *_: [encode(["string"], [name]) for name in names])
        check_lines = price_checks(cast("wiring.Desk", desk), step.snapshot, step.policy, step.reference)
        return {state for check, state, *_ in check_lines if check.startswith("feed ")}

    priced = [token.priced_as for token in tokens.values()]
    assert states([f"{name} / USD" for name in priced]) <= {OK}
    if priced:
        assert states([f"{name} / ETH" for name in priced]) == states(["GOLD / USD" for _ in priced]) == {WARN}


def test_short_means_that_do_not_count_are_named_with_a_reason() -> None:
    answered = replace(v3_pool(token("WETH"), token("USDC"), 2_000), short_mean=TickMean(300, 0, 10**18))
    silent = replace(v3_pool(token("WETH"), token("USDC"), 2_000, name="silent"), observation_counts=(5, 5))
    step = step_input(pools=[silent, answered])
    assert "short TWAPs" not in rows(step), "there is no such window"
    step = replace(step, reference=replace(step.reference, short_window_s=300))
    state, finding, remedy = rows(step)["short TWAPs"]
    assert (state, mentions(finding, "1 of 2", "short TWAP", silent.address, "300 s", "--to 301")) == (WARN, True)
    assert "trimtab oracle" in remedy
    both = with_snapshot(step, pools=(answered,))
    assert rows(both)["short TWAPs"][:2] == (OK, "1 of 1 V3 pools have a usable short TWAP")
    by_feed = replace(step, reference=replace(step.reference, sources=(PriceSource.FEED,)))
    assert "short TWAPs" not in rows(by_feed)


def test_means_that_do_not_count_are_told_with_a_reason() -> None:
    short = v3_pool(token("WETH"), token("USDC"), 2_000, window_s=None)
    step = step_input(pools=[short, v3_pool(token("WETH"), token("USDC"), 2_000, name="long")])
    state, twap_row, remedy = rows(step)["TWAPs"]
    assert (state, "1 of 2 V3 pools have a usable TWAP" in twap_row, short.address in twap_row) == (WARN, True, True)
    assert "trimtab oracle" in remedy
