"""Prices of the time before the agent looked: rounds of feeds and observations of pools, against what the contracts themselves say."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.amm.v3.pool import V3Pool
from agent.app.agent import Agent
from agent.chain.history import past_rounds, past_twaps
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on
from tests.support.constants import HOUR_S
from tests.support.markets.past_prices import push_rounds
from tests.support.text import mentions
from tests.support.worlds import pool_contract

TARGETS = {"WETH": "40%", "LINK": "30%", "USDC": "30%"}


def recorded_prices(agent: Agent, symbol: str) -> dict[int, Fraction]:
    """Stored prices in dollars by time."""
    portfolio = agent.portfolio
    token = next(asset.token for asset in portfolio.assets if asset.token.symbol == symbol)
    scale = Fraction(10) ** (token.decimals - portfolio.numeraire.decimals)
    price_points = agent.context.store.prices.prices_between(portfolio.numeraire.address, 0, 2**40)
    return {point.at_s: point.price * scale for point in price_points if point.token == token.address}


def test_rounds_are_those_that_were_written_and_the_one_before(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        written = push_rounds(chain, "WETH", ["1.01", "1.02", "0.97", "1", "1.05"])
        head = agent.step_input().snapshot.head
        rounds, whole = past_rounds(agent.context.transport, chain.feed_addresses["WETH"], head, written[2].at_s)
        assert whole
        assert list(rounds) == written[1:]
        every, whole = past_rounds(agent.context.transport, chain.feed_addresses["WETH"], head, 0)
        assert not whole, "the first round of all is later than that"
        assert list(every)[-5:] == written


def test_each_hour_gets_the_rounds_that_stood_at_its_end(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        written = push_rounds(chain, "WETH", ["1.01", "1.02", "0.97", "1", "1.05", "1.1", "1.2"])
        fetched_prices_document = api.fetch_prices(agent, "feed", "3h")
        weth = next(item for item in fetched_prices_document["prices"] if item["symbol"] == "WETH")
        assert weth["new"] == weth["hours"] >= 3
        for at_s, usd in recorded_prices(agent, "WETH").items():
            assert (at_s + 1) % HOUR_S == 0
            standing = [round.answer for round in written if round.at_s <= at_s]
            assert usd == Fraction(standing[-1], 10**8)
        assert {item["symbol"]: item["new"] for item in api.fetch_prices(agent, "feed", "3h")["prices"]} == {"WETH": 0, "LINK": 0}


def test_a_feed_that_had_not_spoken_for_too_long_tells_no_price(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY | {"reference.feed_max_age": "90m"}, TARGETS) as agent:
        push_rounds(chain, "WETH", ["1.01"])
        chain.warp(5 * HOUR_S, refresh_feeds=False)
        chain.refresh_feeds()
        api.fetch_prices(agent, "feed", "4h")
        late = [at_s for at_s in recorded_prices(agent, "WETH") if at_s > chain.now_s() - 3 * HOUR_S]
        assert late == []


def test_means_of_pools_are_what_their_contracts_observed(chain: LocalChain, tmp_path: Path) -> None:
    name = next(name for name, pool in chain.deployed_world.pool_by_name.items() if pool.version == 3 and "LINK" in name)
    info = chain.deployed_world.pool_by_name[name]
    with agent_on(chain, tmp_path, ROOMY | {"reference.kind": ["twap"]}, TARGETS) as agent:
        for _ in range(4):
            chain.warp(HOUR_S)
            chain.swap(name, "LINK", 10**21)
        step = agent.step_input()
        head = step.snapshot.head
        pool = next(pool for pool in step.snapshot.pools if isinstance(pool, V3Pool) and pool.address == info.address)
        ends = [end - 1 for end in range(head.timestamp_s // HOUR_S * HOUR_S, head.timestamp_s - 400 * HOUR_S, -HOUR_S)]
        means = past_twaps(agent.context.transport, [pool], head, ends, HOUR_S)
        remembered = [end_s for end_s in ends if means.get(end_s)]
        assert len(remembered) >= 3
        assert len(remembered) < len(ends), "no pool remembers for ever"
        ticks = []
        for end_s in remembered:
            ago = head.timestamp_s - end_s
            before, after = pool_contract(chain, info).functions.observe([ago + HOUR_S, ago]).call(block_identifier=head.number)[0]
            ticks.append((after - before) // HOUR_S)
            assert means[end_s][0].twap_tick == ticks[-1]
        assert len(set(ticks)) > 1, "the market moved"

        document = api.fetch_prices(agent, lookback_text="4h")
        link = next(item for item in document["prices"] if item["symbol"] == "LINK")
        assert (link["source"], link["why"]) == ("pools", "")
        assert link["new"] == link["hours"] >= 3
        [longer] = [item for item in api.fetch_prices(agent, lookback_text="16d")["prices"] if item["symbol"] == "LINK"]
        assert 3 <= longer["hours"] < len(ends)
        assert longer["why"] == "the pools of LINK have no earlier observations, or too many for one fetch"
        spot = float(chain.deployed_world.prices_usd["LINK"])
        assert all(abs(float(usd) / spot - 1) < 0.2 for usd in recorded_prices(agent, "LINK").values())
        spans = {(price["symbol"], price["source"]) for price in api.recorded_price_spans(agent)["prices"]}
        assert ("LINK", "pools") in spans
        assert api.forget_prices(agent, "pools")["removed"] >= link["new"]
        assert recorded_prices(agent, "LINK") == {}


@pytest.mark.parametrize("source", ["feed", None])
def test_what_cannot_be_asked_is_named(anvil_chain: LocalChain, tmp_path: Path, source: str | None) -> None:
    changes = ROOMY | {"portfolio.assets.1.feed": None}
    with agent_on(anvil_chain, tmp_path, changes, TARGETS) as agent:
        price_by_symbol = {item["symbol"]: item for item in api.fetch_prices(agent, source, "2h")["prices"] if item["source"] == "feed"}
        assert mentions(price_by_symbol["LINK"]["why"], "LINK", "no feed")
        assert price_by_symbol["LINK"]["hours"] == 0
