"""Keys that keep single prices from deciding: confirmation, the sequencer of a rollup, ages of feeds, lateness of schedules."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from agent.config.build import build_policy, build_reference
from agent.config.load import parse_config
from agent.config.networks import NETWORKS
from agent.config.networks.presets import ETHEREUM_PRESET, SEQUENCER_FEEDS, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.model import CodeHash
from agent.wiring.transactor import require_sendable
from tests.support.constants import WALLET
from tests.support.text import mentions

WETH = ETHEREUM_PRESET.tokens[0]
USDC = ETHEREUM_PRESET.tokens[2]


def text(chain_id: int = 1, *changes: tuple[str, str]) -> str:
    """The template of that chain, with lines that match replaced."""
    assets = [TemplateAsset(t.symbol, t.address, "50%", t.feed) for t in (WETH, USDC)]
    config = render_config(replace(ETHEREUM_PRESET, chain_id=chain_id), WALLET, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")])
    for pattern, new in changes:
        config, times = re.subn(pattern, new, config, count=1, flags=re.M)
        assert times == 1, pattern
    return config


def refused(chain_id: int, *changes: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(chain_id, *changes))
    return str(caught.value)


@pytest.mark.parametrize("chain_id", sorted(SEQUENCER_FEEDS))
def test_the_template_of_a_rollup_watches_its_sequencer(chain_id: int) -> None:
    reference = build_reference(parse_config(text(chain_id)))
    assert (reference.sequencer_feed, reference.sequencer_grace_s) == (SEQUENCER_FEEDS[chain_id], 3_600)
    assert reference.uptime_feeds == (SEQUENCER_FEEDS[chain_id],)


def test_rollup_sequencer__is_left_unwatched_by_name_alone() -> None:
    message = refused(10, ("^sequencer_feed.*\n", ""))
    assert "reference.sequencer_feed: missing" in message
    assert SEQUENCER_FEEDS[10] in message
    off = parse_config(text(10, ('^sequencer_feed = "[^"]*"', 'sequencer_feed = "off"')))
    assert build_reference(off).uptime_feeds == ()
    assert "sequencer_grace: missing" in refused(10, ("^sequencer_grace.*\n", ""))
    assert "sequencer_feed" not in text(1)


def test_chain_with_unknown_fees__is_refused_or_read_only() -> None:
    assert mentions(refused(534352), "chain.chain_id", "Scroll")
    for chain_id in (1, 10, 8453):
        require_sendable(parse_config(text(chain_id)))
    unlisted = parse_config(text(777))
    with pytest.raises(ConfigError, match=r"777: .* so nothing is sent"):
        require_sendable(unlisted)
    copy = parse_config(text(777, ("^chain_id = .*$", "chain_id = 777\nfork = true")))
    require_sendable(copy)


def test_how_many_blocks_confirm_is_chosen_by_name() -> None:
    assert build_policy(parse_config(text())).confirm_blocks == 3
    assert mentions(refused(1, ("^confirm_blocks.*\n", "")), "policy.confirm_blocks", "missing")
    for count in (0, 32):
        assert build_policy(parse_config(text(1, ("^confirm_blocks = 3", f"confirm_blocks = {count}")))).confirm_blocks == count
    for wrong in ("-1", "33"):
        assert "policy.confirm_blocks" in refused(1, ("^confirm_blocks = 3", f"confirm_blocks = {wrong}"))


def test_a_schedule_is_late_by_half_of_its_interval_at_most() -> None:
    assert build_policy(parse_config(text())).jitter_bps == 1_000
    assert build_policy(parse_config(text(1, ('^jitter = "10%"', 'jitter = "off"')))).jitter_bps == 0
    assert build_policy(parse_config(text(1, ('^jitter = "10%"', 'jitter = "50%"')))).jitter_bps == 5_000
    assert "policy.jitter" in refused(1, ('^jitter = "10%"', 'jitter = "50.01%"'))


def test_a_feed_has_its_own_age_where_its_asset_names_one() -> None:
    config = parse_config(text(1, ('^feed_max_age = "2h"', 'feed_max_age = "70m"')))
    reference = build_reference(config)
    assert reference.max_age_s(str(WETH.feed)) == 4_200
    assert reference.max_age_s(str(USDC.feed)) == 25 * 3_600


@pytest.mark.parametrize(
    ("ages_s", "max_age_s"),
    [
        pytest.param([7_200, 86_400], 7_200, id="the lesser comes first"),
        pytest.param([86_400, 7_200], 7_200, id="the lesser comes last"),
        pytest.param([], 25 * 3_600, id="no token has its own"),
        pytest.param([0], 0, id="none is young enough"),
    ],
)
def test_feed_of_two_tokens__is_held_to_the_lesser_age(ages_s: list[int], max_age_s: int) -> None:
    reference = replace(build_reference(parse_config(text())), max_age_s_by_feed=tuple(("0xfeed", age_s) for age_s in ages_s))
    assert reference.max_age_s("0xfeed") == max_age_s


def test_a_new_config_holds_a_feed_to_its_heartbeat() -> None:
    """A feed that no longer writes is not within its threshold, and the floors of swaps follow it."""
    reference = build_reference(parse_config(text()))
    assert reference.max_age_s(str(WETH.feed)) == 2 * 3_600
    assert reference.max_age_s(str(USDC.feed)) == 25 * 3_600, "USDC's heartbeat is a day"


@pytest.mark.parametrize(
    ("line", "window_s"),
    [
        ('short_window = "5m"\n', 300),
        ("", 300),
        ('short_window = "off"\n', 0),
        ('short_window = "60s"\n', 60),
        ('short_window = "15m"\n', 900),
    ],
    ids=["as written", "config of an earlier release", "off", "shortest", "longest"],
)
def test_short_window__is_five_minutes_unless_chosen(line: str, window_s: int) -> None:
    assert build_reference(parse_config(text(1, ("^short_window.*\n", line)))).short_window_s == window_s


@pytest.mark.parametrize("window", ["59s", "901s", "0s", "30m"])
def test_short_window__beyond_its_bounds_is_refused(window: str) -> None:
    assert mentions(refused(1, ('^short_window = "5m"', f'short_window = "{window}"')), "reference.short_window", "1m", "15m")


def test_short_window__needs_twaps_among_the_sources() -> None:
    assert build_reference(parse_config(text(1, ("^kind = .*$", 'kind = ["feed"]')))).short_window_s == 0
    assert build_reference(parse_config(text(1, ("^kind = .*$", 'kind = ["twap"]')))).short_window_s == 300


@pytest.mark.parametrize("chain_id", [network.chain_id for network in NETWORKS])
def test_short_window__template_of_each_chain_writes_it(chain_id: int) -> None:
    assert 'short_window = "5m"' in text(chain_id)


def test_pins_say_whose_means_count() -> None:
    config = parse_config(text())
    assert build_reference(config).twap_pools is None
    assert build_reference(config, []).twap_pools == ()
    assert build_reference(config, [("0xA", "0xb")]).twap_pools == (CodeHash("0xA", "0xb"),)
