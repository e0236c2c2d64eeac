"""Stores that were restored, copied or lost: who may send, what they still know of the last day, and of liquidity (T6, T8)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.amm.lp import own_changes
from agent.app.agent import Agent
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, OperatorNeeded
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.liquidity.state import LiquidityState
from agent.localchain import LocalChain
from agent.model import Halt
from tests.support import agents, lp_on_chain
from tests.support.agents import ROOMY, USD, explain_balances, fund, loss_usd, purse, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.lp_on_chain import EVEN, send
from tests.support.on_chain.lp_actions import V3, config_with_targets
from tests.support.text import raises_code

UP = {"WETH": 55_000, "USDC": 35_000}
DOWN = {"WETH": 35_000, "USDC": 55_000}


def step(chain: LocalChain, agent: Agent, holdings: dict[str, int]) -> StepOutcome:
    """The owner changed the holdings, and said so; then one step."""
    fund(chain, holdings)
    explain_balances(agent)
    return agent.rebalance(send=True, confirm=yes)


def back_up_and_trade(chain: LocalChain, agent: Agent, backup: Path) -> None:
    """A backup, then a rebalance that it does not know."""
    fund(chain, UP)
    explain_balances(agent)
    api.backup_store(agent.context.loaded_config.path, backup)
    assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


def machine(chain: LocalChain, folder: Path, backup: Path, changes: agents.Changes) -> LoadedConfig:
    """Another machine on which the backup was restored."""
    loaded = agents.agent_config(chain, folder, changes, EVEN)
    api.restore_store(loaded.path, backup)
    return loaded


def test_two_machines_of_one_backup__only_the_adopter_sends(chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(chain, tmp_path / "old", ROOMY, EVEN)
    with reopened_agent(chain, loaded) as agent:
        assert step(chain, agent, UP).kind is OutcomeKind.DONE
        api.backup_store(loaded.path, tmp_path / "backup.db")  # while it is open
    first, second = (machine(chain, tmp_path / name, tmp_path / "backup.db", ROOMY) for name in ("first", "second"))
    fund(chain, DOWN)
    with reopened_agent(chain, first) as agent:
        explain_balances(agent)
        before = purse(chain)
        stopped = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "trimtab adopt" in stopped.reason
        assert purse(chain) == before
        agent.resync_nonce()
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    sent = purse(chain)
    for behind in (loaded, second):
        with reopened_agent(chain, behind) as agent, raises_code(OperatorNeeded, "foreign_nonce"):
            agent.rebalance(send=True, confirm=yes)
    assert purse(chain) == sent


def test_a_new_store_knows_what_the_wallet_lost_before_it(chain: LocalChain, tmp_path: Path) -> None:
    """Whoever deletes the store starts with no fresh budget."""
    prices = dict(chain.deployed_world.prices_usd)
    fund(chain, UP)
    with agents.agent_on(chain, tmp_path / "first", ROOMY, EVEN, vouched=False) as agent:
        before = purse(chain)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        bled = loss_usd(chain, before, prices)
        known = agent.step_input().history
    with agents.agent_on(chain, tmp_path / "second", ROOMY, EVEN, vouched=False) as agent:
        history = agent.step_input().history
        assert abs(history.budgets.loss_24h - known.budgets.loss_24h) < USD * Fraction(1, 100)
        assert (history.budgets.turnover_24h, history.budgets.gas_24h_wei) == (known.budgets.turnover_24h, known.budgets.gas_24h_wei)
        assert history.budgets.loss_24h / USD >= bled > 0
        assert history.budgets.unknown_reason == ""
    tight = ROOMY | {"limits.daily_loss": "1bps"}
    with agents.agent_on(chain, tmp_path / "third", tight, EVEN, vouched=False) as agent:
        fund(chain, {"WETH": 34_000, "USDC": 20_000})
        explain_balances(agent)
        refused = agent.rebalance(send=True, confirm=yes)
        assert [verdict.guard for verdict in agents.failed_verdicts(refused)] == ["daily_loss"]


def test_adopted_restored_store__knows_what_happened_since(chain: LocalChain, tmp_path: Path) -> None:
    """Balances and budgets: what the wallet itself did is told by the chain, and is no flow to be explained."""
    loaded = trusted_config(chain, tmp_path / "a", ROOMY, EVEN, vouched=False)
    with reopened_agent(chain, loaded) as agent:
        back_up_and_trade(chain, agent, tmp_path / "backup.db")
        known = agent.step_input().history
    api.restore_store(loaded.path, tmp_path / "backup.db", force=True)
    with reopened_agent(chain, loaded) as agent:
        agent.resync_nonce()
        history = agent.step_input().history
        assert abs(history.budgets.loss_24h - known.budgets.loss_24h) < USD * Fraction(1, 100)
        assert history.budgets.gas_24h_wei == known.budgets.gas_24h_wei
        assert history.cash_flows.unexplained_transfers == ()
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_an_owner_may_vouch_that_nothing_was_lost(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, UP)
    with agents.agent_on(chain, tmp_path / "first", ROOMY, EVEN) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    loaded = trusted_config(chain, tmp_path / "second", ROOMY, EVEN, vouched=False)
    with reopened_agent(chain, loaded) as agent:
        agent.resync_nonce(nothing_lost=True)
        assert agent.step_input().history.budgets.loss_24h == 0


def test_a_position_from_after_the_backup_is_not_minted_again(chain: LocalChain, tmp_path: Path) -> None:
    """A store restored from before a mint, then adopted, halts by name until its owner takes the position over, or leaves it."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, config_with_targets(chain, V3), EVEN)
    with reopened_agent(chain, loaded) as agent:
        agent.step_input()
        api.backup_store(loaded.path, tmp_path / "backup.db")
        assert send(agent, chain).kind is OutcomeKind.DONE
        (mint,) = agent.context.store.positions.changes()
    api.restore_store(loaded.path, tmp_path / "backup.db", force=True)
    with reopened_agent(chain, loaded) as agent:
        agent.resync_nonce()
        halted = require_rebalance(agent, OutcomeKind.HALT)
        assert mint.name in halted.reason
        assert "trimtab lp take" in halted.reason
        with raises_code(ConfigError, "unknown"):
            api.adopt_position(agent, "987654")
        adopted_position_document = api.adopt_position(agent, str(mint.token_id))
        assert adopted_position_document["position"] == mint.name
    with reopened_agent(chain, loaded) as agent:
        (taken,) = agent.context.store.positions.changes()
        assert (taken.token_id, taken.liquidity_delta, taken.ticks, taken.pool) == (
            mint.token_id,
            mint.liquidity_delta,
            mint.ticks,
            mint.pool,
        )
        assert taken.amounts_raw == pytest.approx(mint.amounts_raw, rel=1e-6)
        explain_balances(agent)
        next_outcome = agent.rebalance(send=True, confirm=yes)
        assert (next_outcome.kind, next_outcome.transactions) == (OutcomeKind.HOLD, ()), next_outcome.reason
        with raises_code(ConfigError, "exists"):
            api.adopt_position(agent, str(mint.token_id))


def test_position_opened_and_given_away__is_forgotten(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, config_with_targets(chain, V3), EVEN)
    with reopened_agent(chain, loaded) as agent:
        assert send(agent, chain).kind is OutcomeKind.DONE
        (mint,) = agent.context.store.positions.changes()
        chain.send(lp_on_chain.manager(chain).transferFrom(chain.wallet.address, chain.whale.address, mint.token_id), chain.wallet.address)
        agent.resync_nonce()
        assert isinstance(agent.status().decision_result.decision, Halt)
    with pytest.raises(ConfigError, match="is not a position that the agent opened or adopted"):
        api.forget_position(loaded.path, "987654")
    assert api.forget_position(loaded.path, str(mint.token_id))["position"] == mint.name
    with reopened_agent(chain, loaded) as agent:
        assert not own_changes.is_position_open(agent.context.store.positions.changes(), mint.name)
        assert not isinstance(agent.status().decision_result.decision, Halt)
    with pytest.raises(ConfigError, match="is not a position that the agent opened or adopted"):
        api.forget_position(loaded.path, str(mint.token_id))


def test_tokens_sent_after_the_scan__halt_nothing(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3), EVEN) as agent:
        agent.step_input()
        lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)  # by the whale, to the wallet
        assert agent.step_input().layer(LiquidityState).undecided_positions == ()


def test_days_since_the_backup__only_the_last_counts_in_limits(chain: LocalChain, tmp_path: Path) -> None:
    """docs/how-to.md, SECURITY.md: of what happened since a backup only the last 24 h are read from the chain."""
    loaded = trusted_config(chain, tmp_path / "a", ROOMY, EVEN, vouched=False)
    with reopened_agent(chain, loaded) as agent:
        back_up_and_trade(chain, agent, tmp_path / "backup.db")
        chain.warp(2 * 86_400)
        assert step(chain, agent, DOWN).kind is OutcomeKind.DONE
        known = agent.step_input().history.budgets
    api.restore_store(loaded.path, tmp_path / "backup.db", force=True)
    with reopened_agent(chain, loaded) as agent:
        agent.resync_nonce()
        agent.step_input()
        explain_balances(agent)
        history = agent.step_input().history
        assert history.budgets.gas_24h_wei == known.gas_24h_wei > 0
        assert abs(history.budgets.loss_24h - known.loss_24h) < USD * Fraction(1, 100)
        assert history.budgets.loss_total < known.loss_total, "the first rebalance is forgotten"
