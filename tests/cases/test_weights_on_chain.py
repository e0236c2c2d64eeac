"""Chosen weights on the chain: from a file of prices to the mined swaps, through a restart, and to a halt where data end."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations
from pathlib import Path

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.past import step_history
from agent.config.load import load_config
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import AllocationMethod, Halt, TokenSupply
from agent.units import BPS, pluralize
from tests.support.agents import (
    ROOMY,
    agent_on,
    fund,
    reopened_agent,
    require_exact_rebalance,
    require_rebalance,
    weights,
    yes,
)
from tests.support.on_chain.weights import SETTINGS, TARGETS, VOLATILE, WEIGHED, closes
from tests.support.planning_worlds import DAY_S
from tests.support.stores import chosen_weights
from tests.support.text import causes, mentions, raises_field

TARGETS_BPS = {"WETH": 3_000, "WBTC": 3_000, "LINK": 2_000, "USDC": 2_000}


def usd_shares(chain: LocalChain) -> dict[str, float]:
    return {symbol: float(share) for symbol, share in weights(chain, TARGETS).items()}


def chosen_bps(agent: Agent) -> dict[str, int]:
    allocations = agent.context.store.allocations.newest()
    assert allocations is not None
    return {agent.portfolio.token(token).label: bps for token, bps in allocations.weights_bps}


def test_weights_from_prices__survive_a_restart_and_halt_when_old(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, WEIGHED, TARGETS) as agent:
        fund(chain, {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000})
        first = agent.rebalance(send=True, confirm=yes)
        assert first.kind is OutcomeKind.HOLD, "before any prices the targets of the config count"
        assert mentions(first.step_input.targets.reasons[0], "inverse_volatility", "min_history requires 30")
        assert agent.context.store.allocations.newest() is None
        sources = {span.source for span in agent.context.store.prices.spans(agent.portfolio.numeraire.address)}
        assert "look" in sources
        assert sources <= {"look", "feed"}, "the feeds of a young chain have rounds of a few hours at most"

        imported_prices_document = api.import_prices(agent, closes(chain, tmp_path / "closes.csv"))
        assert {item["symbol"]: item["new"] for item in imported_prices_document["prices"]} == dict.fromkeys(VOLATILE, 60), (
            "the hour of now is known"
        )
        weights_document = api.weights(agent)
        assert weights_document["due"]
        assert weights_document["chosen"] is None
        done = require_exact_rebalance(chain, agent)
        chosen = chosen_bps(agent)
        assert chosen == weights_document["now"]["weights_bps"], "trimtab weights shows what the next step chooses"
        assert sum(chosen.values()) == BPS
        assert chosen["USDC"] == 2_000
        assert chosen["WETH"] > chosen["WBTC"] > chosen["LINK"]
        assert all(abs(usd_shares(chain)[symbol] - bps) < 40 for symbol, bps in chosen.items())
        told_words = " ".join(step_history.explain(tmp_path / "trimtab.toml", done.step_id)["sentences"])
        assert mentions(told_words, "Targets", "inverse_volatility", "chosen")
        assert "volatilities" in told_words
        agent.context.store.prices.forget(agent.portfolio.numeraire.address, "import")

    with reopened_agent(chain, load_config(tmp_path / "trimtab.toml")) as agent:
        second_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert {asset.token.symbol: asset.target_bps for asset in second_outcome.step_input.effective_assets} == chosen
        assert second_outcome.step_input.history.prices == (), "no look but the one that chooses carries prices"
        chain.warp(7 * DAY_S + 60)
        stays = require_rebalance(agent, OutcomeKind.HOLD)
        assert "no new weights" in stays.step_input.targets.reasons[0]
        assert chosen_bps(agent) == chosen
        chain.warp(2 * DAY_S)
        ended = agent.rebalance(send=True, confirm=yes)
        assert isinstance(ended.decision, Halt)
        assert causes(ended) == ("weights",)
        assert "inverse_volatility" in ended.decision.reason
        assert "portfolio.weights.keep" in ended.decision.reason
        assert len(chosen_weights(agent.context.store)) == 1


TRACKING: dict[str, object] = {"policy.trigger": {"kind": "tracking", "strictness": "normal"}, "policy.destination": "zone"}
START = {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000}


def test_tracking__trades_to_the_edges_around_chosen_weights(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, WEIGHED | TRACKING, TARGETS) as agent:
        fund(chain, START)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        api.import_prices(agent, closes(chain, tmp_path / "closes.csv"))
        require_exact_rebalance(chain, agent)
        chosen = chosen_bps(agent)
        assert chosen["WETH"] > TARGETS_BPS["WETH"] + 1_000
        rested = require_rebalance(agent, OutcomeKind.HOLD)
        zone = rested.decision_result.zone
        assert zone is not None
        for interval in zone.intervals:
            symbol = agent.portfolio.token(interval.token).label
            assert interval.trigger_low <= Fraction(usd_shares(chain)[symbol]) / BPS <= interval.trigger_high, symbol
            chosen_weight = Fraction(chosen[symbol], BPS)
            assert interval.trigger_low < chosen_weight < interval.trigger_high, (
                "what others are off moves the edges, not beyond the weight"
            )


def test_tracking__waits_with_the_weights_until_accepted(chain: LocalChain, tmp_path: Path) -> None:
    settings: dict[str, object] = {"portfolio.weights": SETTINGS | {"max_change": "5%"}}
    with agent_on(chain, tmp_path, ROOMY | TRACKING | settings, TARGETS) as agent:
        fund(chain, START)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        api.import_prices(agent, closes(chain, tmp_path / "closes.csv"))
        waiting = require_rebalance(agent, OutcomeKind.HOLD)
        (reason,) = waiting.step_input.targets.reasons
        assert "max_change" in reason
        assert waiting.notes == (f"targets: {reason}",)
        assert repr(waiting).endswith("; 1 note)")
        status = agent.status()
        assert waiting.notes[0] in status.notes
        assert repr(status).endswith(f"; hold, {pluralize(len(status.notes), 'note')})")
        assert agent.context.store.allocations.newest() is None
        assert api.weights(agent, accept=lambda _: True)["accepted"]
        require_exact_rebalance(chain, agent)
        assert chosen_bps(agent)["WETH"] > TARGETS_BPS["WETH"] + 1_000


def capped(folder: Path, supplies: str) -> dict[str, object]:
    """Market cap, USDC fixed, some supplies from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "supplies.csv").write_text(supplies)
    settings = {key: SETTINGS[key] for key in ("every", "max_age", "keep", "churn", "fixed")}
    return ROOMY | {
        "portfolio.weights": settings | {"kind": "market_cap", "until_chosen": "wait", "cap": "50%", "supplies": "supplies.csv"}
    }


def test_market_caps__are_supplies_of_the_block_times_price(chain: LocalChain, tmp_path: Path) -> None:
    changes = capped(tmp_path, "symbol,supply,as_of\nWBTC,19850000,2026-11-01\n")
    with agent_on(chain, tmp_path, changes, TARGETS) as agent:
        fund(chain, {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000})
        planned = agent.plan()
        step = planned.step_input
        supply_by_symbol = {symbol: chain.token_contract(symbol).functions.totalSupply().call() for symbol in ("WETH", "LINK")}
        assert step.snapshot.supplies == tuple(TokenSupply(chain.tokens[symbol].address, raw) for symbol, raw in supply_by_symbol.items())
        prices = chain.deployed_world.prices_usd
        caps = {symbol: raw * prices[symbol] / 10**18 for symbol, raw in supply_by_symbol.items()} | {"WBTC": 19_850_000 * prices["WBTC"]}
        target_bps_by_symbol = {asset.token.symbol: asset.target_bps for asset in step.effective_assets}
        assert max(caps, key=lambda symbol: caps[symbol]) == "WBTC"
        assert target_bps_by_symbol["WBTC"] == 5_000, "the cap"
        rest = caps["WETH"] + caps["LINK"]
        assert abs(target_bps_by_symbol["WETH"] - 3_000 * caps["WETH"] / rest) < 1
        assert mentions(step.targets.reasons[0], "WBTC", "supplies.csv", "2026-11-01")
        assert agent.context.store.allocations.newest() is None, "a plan writes nothing"


def test_market_cap_of_zero__halts_by_name(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(anvil_chain, tmp_path, capped(tmp_path, "symbol,supply\nLINK,0\n"), TARGETS) as agent:
        fund(anvil_chain, {"WETH": 60_000, "USDC": 40_000})
        outcome = require_rebalance(agent, OutcomeKind.HALT)
        assert mentions(outcome.reason, "market_cap", "LINK", "supplies.csv")
        assert outcome.transactions == ()
        assert mentions(api.weights(agent)["fault"], "LINK", "zero")


def test_weights_document__is_one_json_with_its_data(anvil_chain: LocalChain, tmp_path: Path) -> None:
    settings = SETTINGS | {"kind": "hrp"}
    with agent_on(anvil_chain, tmp_path, ROOMY | {"portfolio.weights": settings}, TARGETS) as agent:
        api.import_prices(agent, closes(anvil_chain, tmp_path / "closes.csv"))
        document = json.loads(json.dumps(api.weights(agent)))
        assert document["kind"] == AllocationMethod.HRP.value
        assert document["now"]["returns"] == 60
        assert document["now"]["until_s"] == anvil_chain.now_s()
        assert sum(document["now"]["weights_bps"].values()) == BPS
        volatility = {item["symbol"]: item["volatility"] for item in document["assets"]}
        assert volatility["USDC"] is None
        assert 0 < float(volatility["WETH"]) < float(volatility["WBTC"]) < float(volatility["LINK"])
        assert {frozenset(pair.split("/")) for pair in document["correlations"]} == set(map(frozenset, combinations(VOLATILE, 2)))
        assert api.weights(agent) == api.weights(agent), "asked twice, told alike"


def test_a_config_without_an_allocator_says_so(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS) as agent, raises_field("portfolio.weights", "allocator"):
        api.weights(agent)
