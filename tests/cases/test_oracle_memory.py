"""Pools that remember too little: their means do not count, are named with the remedy, and the remedy works, through journal and signer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.app.documents.positions import RaisedObservationsDocument
from agent.app.records.oracle import observations, raise_observations
from agent.artifacts import npm_artifact
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.chain import V3_POOL_ARTIFACT
from agent.model import IntentKind, IntentState
from agent.reference.prices import required_observations
from tests.support.agents import ROOMY, agent_on, fund, purse, reopened_agent, require_rebalance, trusted_config
from tests.support.stores import unpin
from tests.support.text import raises_code, raises_field

TWO = {"WETH": "50%", "USDC": "50%"}
BY_MEANS = {**ROOMY, "reference.kind": ["twap"], "reference.twap_window": "60s"}
"""Over a minute, so that the test's pool can fill its memory with few trades."""
ENOUGH = 61
"""One for each second of it: this chain is none whose blocks are known to be slower."""


def forgetful(chain: LocalChain) -> tuple[str, dict[str, object]]:
    """A pool as anybody makes it, which keeps one observation, and the config in which it is the only one with a mean."""
    pool = chain.add_v3_pool("LINK", "USDC", 500, observation_count=1)
    chain.mint_positions(pool, [(-887_200, 887_200, 10**18)])
    return pool.name, {**BY_MEANS, "venues.uniswap_v2": None, "venues.uniswap_v3.pools": [pool.address]}


LINKED = {"LINK": "50%", "USDC": "50%"}


def trade(chain: LocalChain, pool: str, after_s: int) -> None:
    """A trade that moves the price by some ticks, so much later: one more observation."""
    chain.warp(after_s, refresh_feeds=False)
    chain.swap(pool, "LINK", 50 * 10**18)


def test_forgetful_pool__gives_no_mean_until_made_to_remember(chain: LocalChain, tmp_path: Path) -> None:
    pool, changes = forgetful(chain)
    fund(chain, {"LINK": 5_000, "USDC": 5_000})
    for _ in range(3):
        trade(chain, pool, 20)
    at = chain.address_by_pool[pool]
    with agent_on(chain, tmp_path, changes, LINKED) as agent:
        before = purse(chain)
        blind = require_rebalance(agent, OutcomeKind.HALT)
        assert f"trimtab oracle {at} --to {ENOUGH}" in blind.reason
        (row,) = observations(agent)["pools"]
        assert (row["observations"], row["sufficient"]) == (1, False)

        gas_before_wei = agent.context.store.budgets.history(chain.now_s()).budgets.gas_24h_wei
        raised_observations_document = raise_observations(agent, at, ENOUGH)
        assert (
            raised_observations_document["outcome"],
            raised_observations_document["increase"],
            raised_observations_document["transactions"],
        ) == ("planned", ENOUGH - 1, [])
        assert purse(chain) == before

        def change_and_confirm(document: RaisedObservationsDocument) -> bool:
            document["to"] = 7  # what is sent does not depend on what a caller does with its document
            document["pool"] = chain.tokens["LINK"].address
            return document["most_native"] is not None

        done = raise_observations(agent, at, ENOUGH, send=True, confirm=change_and_confirm)
        assert (done["pool"], done["to"]) == (at, ENOUGH)
        (sent,) = done["transactions"]
        assert (sent["kind"], sent["status"]) == (IntentKind.ORACLE.value, IntentState.FINAL.value)
        assert abs(sent["gas_used"] - raised_observations_document["gas_units"]) < raised_observations_document["gas_units"] // 5
        paid = before.native_wei - purse(chain).native_wei
        assert paid == sent["gas_used"] * int(sent["gas_price_wei"])
        assert agent.context.store.budgets.history(chain.now_s()).budgets.gas_24h_wei - gas_before_wei == paid
        assert agent.context.store.budgets.history(chain.now_s()).failures.approval_cycles_in_row == 0
        assert chain.contract(at, npm_artifact(V3_POOL_ARTIFACT)).functions.slot0().call()[4] == ENOUGH
        assert f"keep {ENOUGH}" in agent.rebalance().reason

        for _ in range(5):
            trade(chain, pool, 20)
        seeing = agent.rebalance()
        assert seeing.kind is OutcomeKind.HOLD, seeing.reason
        (row,) = observations(agent)["pools"]
        assert (row["observations"], row["sufficient"], row["why"]) == (ENOUGH, True, "")
        again_asked = raise_observations(agent, at, ENOUGH, send=True)
        assert (again_asked["outcome"], again_asked["transactions"]) == ("hold", [])


def test_oracle__no_pause_unpinned_pool_or_wrong_number_sends(chain: LocalChain, tmp_path: Path) -> None:
    at = chain.address_by_pool["v3 WETH/USDC 500"]
    loaded = trusted_config(chain, tmp_path, ROOMY, TWO)
    before = purse(chain)
    with reopened_agent(chain, loaded) as agent:
        assert raise_observations(agent, at, 100, send=True)["outcome"] == "declined"
        for wrong, words in ((0, "not between 1"), (70_000, "not between 1"), (5_000, "raise it in steps: --to 564")):
            with pytest.raises(ConfigError, match=words):
                raise_observations(agent, at, wrong)
        with raises_field("POOL", "V3 pool"):
            raise_observations(agent, chain.address_by_pool["v2 WETH/USDC"], 100)
        agent.context.kill_switch.pause("looking", chain.now_s())
        with raises_code(Refused, "kill_switch"):
            raise_observations(agent, at, 100, send=True, confirm=agreed)
        agent.context.kill_switch.resume("looked", chain.now_s())
        unpin(agent.context.store, at)
    with reopened_agent(chain, loaded) as agent, raises_field("POOL", "V3 pool"):
        raise_observations(agent, at, 100, send=True, confirm=agreed)
    assert purse(chain) == before


def test_the_gas_of_a_day_binds_it(chain: LocalChain, tmp_path: Path) -> None:
    with (
        agent_on(chain, tmp_path, {**ROOMY, "limits.gas_per_day": "0.0001"}, TWO) as agent,
        raises_code(Refused, "signer.gas_cost", "gas_cost"),
    ):
        raise_observations(agent, chain.address_by_pool["v3 WETH/USDC 500"], 300, send=True, confirm=agreed)


def test_enough_is_an_observation_for_each_block_of_the_window() -> None:
    assert [required_observations(chain_id, 1_800) for chain_id in (1, 10, 42_161)] == [151, 901, 1_801]
    assert required_observations(42_161, 86_400 * 30) == 65_535


def agreed(_: dict[str, Any]) -> bool:
    """The owner confirms."""
    return True
