"""Controls that change what counts as whose, on a chain: ledgers of strategies, who gets deposits, positions taken and forgotten; each as
shown, once, and never at the cost of an exit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.controls import queue
from agent.chain.pools import own_positions
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind
from agent.layers.strategies.state import StrategiesState
from agent.layers.strategies.store import StrategyStore
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition, Control, ControlKind, ControlOrigin, ControlState, ControlSubmission, IntentKind
from tests.faults.rig import in_child
from tests.support import agents, lp_on_chain
from tests.support.agents import USD, fund, purse, reopened_agent, trusted_config
from tests.support.lp_on_chain import EVEN, send
from tests.support.on_chain.controls import ControlledRun, die_in_cycle
from tests.support.on_chain.holdings import VALUED, paused_run
from tests.support.on_chain.lp_actions import V3, config_with_targets
from tests.support.on_chain.strategies import require_sum
from tests.support.text import raises_code, raises_field
from tests.support.transactions import Killed

APPLY = ("apply", "yes")


def ended(run: ControlledRun, control: Control) -> tuple[ControlState, str]:
    """State and code of a control after a cycle of a paused run, which trades nothing."""
    before = purse(run.chain)
    record = run.ended(control)
    assert purse(run.chain) == before, "nothing is sent"
    return record.state, record.code


def paused(chain: LocalChain, agent: Agent) -> ControlledRun:
    agent.context.kill_switch.pause("still", chain.now_s())
    return ControlledRun(chain, agent.context.loaded_config, agent)


@pytest.fixture
def transferable_positions(chain: LocalChain) -> None:
    """Let the whale move the wallet's positions, before an agent knows the wallet's nonce."""
    chain.send(lp_on_chain.manager(chain).setApprovalForAll(chain.whale.address, True), chain.wallet.address)


def transfer_away(chain: LocalChain, token_id: int | None) -> None:
    """Move a position out of the wallet, without a transaction of it."""
    chain.send(lp_on_chain.manager(chain).transferFrom(chain.wallet.address, chain.whale.address, token_id), chain.whale.address)


# --- Positions.


@pytest.mark.usefixtures("transferable_positions")
def test_position__is_taken_as_shown(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, VALUED, EVEN)) as agent:
        run = paused(chain, agent)
        run.look()
        own, other, foreign = (lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500, owner) for owner in (None, None, chain.whale.address))
        with raises_code(ConfigError, "unknown"):
            run.shown("holdings", ("take", str(foreign.token_id)))
        shown_plan_document: Any = run.shown("holdings", ("take", str(own.token_id)))
        assert shown_plan_document["document"]["changes"][0].startswith(f"{own.name} counts from now on: liquidity ")
        assert {move.split(" ")[1] for move in shown_plan_document["moves"]} == {"WETH", "USDC"}
        assert agent.context.store.positions.changes() == (), "a preview writes nothing"
        kept = run.ask("holdings", ("take", str(own.token_id)))
        gone = run.ask("holdings", ("take", str(other.token_id)))
        transfer_away(chain, other.token_id)
        assert ended(run, gone) == (ControlState.REFUSED, "unknown"), "given away between preview and confirmation"
        record = run.store.controls.find(kept.id)
        assert record is not None
        assert (record.state, record.code) == (ControlState.DONE, ""), record
        (taken,) = run.store.positions.changes()
        assert taken.name == own.name
        assert taken.amounts_raw == pytest.approx(own.entry_raw, rel=1e-3)
        assert api.read_liquidity_report(agent).forgettable == (own.name,)
        with raises_code(ConfigError, "exists"):
            run.shown("holdings", ("take", str(own.token_id)))


@pytest.mark.usefixtures("transferable_positions")
def test_position__is_forgotten_once_gone(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, trusted_config(chain, tmp_path, VALUED, EVEN)) as agent:
        run = paused(chain, agent)
        run.look()
        own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
        with raises_code(ConfigError, "unknown"):
            run.shown("holdings", ("forget", str(own.token_id)))
        api.adopt_position(agent, str(own.token_id))
        shown_plan_document: Any = run.shown("holdings", ("forget", str(own.token_id)))
        assert [move[0] for move in shown_plan_document["moves"]] == ["-", "-"]
        assert shown_plan_document["document"]["warnings"]
        transfer_away(chain, own.token_id)
        control = run.ask("holdings", ("forget", str(own.token_id)))
        assert ended(run, control) == (ControlState.DONE, "")
        assert api.read_liquidity_report(agent).forgettable == ()
        with raises_code(Refused, "plan_used"):
            run.ask("holdings", ("forget", str(own.token_id)), plan=control.plan_hash)


def test_position__is_taken_wherever_it_is_listed(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_positions, "MAX_CHECKED_TOKENS", 1)
    with reopened_agent(chain, trusted_config(chain, tmp_path, VALUED, EVEN)) as agent:
        for position in [lp_on_chain.provide_v3(chain, V3, -n, n, 500) for n in (10, 20, 30)]:
            assert api.adopt_position(agent, str(position.token_id))["position"] == position.name


@pytest.mark.parametrize("number", ["9" * 78, "9" * 5_000, "-1", "1.5"], ids=["above 256 bits", "very long", "negative", "a fraction"])
def test_text_that_is_no_number_of_a_position__is_refused(chain: LocalChain, tmp_path: Path, number: str) -> None:
    with reopened_agent(chain, trusted_config(chain, tmp_path, VALUED, EVEN)) as agent:
        with raises_field("position"):
            api.adopt_position(agent, number)
        with raises_field("position"):
            api.forget_position(agent.context.loaded_config.path, number)


STOPPED = {**VALUED, "portfolio.assets.0.stop_loss": "50%"}


def require_no_forgetting(run: ControlledRun, position: ConfirmedPosition, why: str) -> None:
    with raises_code(Refused, "widens", why, f"trimtab lp forget {position.token_id}"):
        run.shown("holdings", ("forget", str(position.token_id)))


@pytest.mark.parametrize(
    ("config_of", "why"),
    [
        pytest.param(partial(config_with_targets, pool=V3), "its target would provide again", id="target"),
        pytest.param(lambda _: STOPPED, "exits would not withdraw it", id="exit"),
    ],
)
def test_control__forgets_nothing_a_target_or_exit_needs(
    chain: LocalChain, tmp_path: Path, config_of: Callable[[LocalChain], dict[str, object]], why: str
) -> None:
    """The terminal does: a stolen session has none."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, config_of(chain), EVEN)
    with reopened_agent(chain, loaded) as agent:
        run = paused(chain, agent)
        run.look()
        own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
        assert ended(run, run.ask("holdings", ("take", str(own.token_id)))) == (ControlState.DONE, "")
        require_no_forgetting(run, own, why)
    assert api.forget_position(loaded.path, str(own.token_id))["position"] == own.name


def test_control__forgets_no_undecided_position_of_a_target(chain: LocalChain, tmp_path: Path) -> None:
    """As a restored store finds it."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, config_with_targets(chain, V3), EVEN)) as agent:
        run = paused(chain, agent)
        run.look()
        own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
        run.store.positions.record_scan([own.name], chain.now_s())
        require_no_forgetting(run, own, "its target would provide again")


def test_position_in_withdrawal__is_neither_forgotten_nor_taken(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, config_with_targets(chain, V3, width="5%"), EVEN)
    with reopened_agent(chain, loaded) as agent:
        assert send(agent, chain).kind is OutcomeKind.DONE
        [old] = agent.context.store.positions.changes()
    chain.move_market({"WETH": 3_300})

    def dies(event: str) -> None:
        if event == "after:send" and any(intent.kind is IntentKind.LIQUIDITY for intent in agent.context.store.journal.open_intents()):
            raise Killed

    with reopened_agent(chain, loaded) as agent:
        with pytest.raises(Killed):
            agent.rebalance(send=True, confirm=agents.yes, progress=dies)
        run = ControlledRun(chain, loaded, agent)
        number = ("forget", str(old.token_id))
        with raises_code(Refused, "open_transaction"):
            run.shown("holdings", number)
        with raises_code(Refused, "open_transaction"):
            api.forget_position(loaded.path, str(old.token_id))
        with raises_code(Refused, "open_transaction"):
            agent.context.store.positions.record_decision(old.name, old, chain.now_s())
        assert agent.context.store.positions.changes()[0] == old


def test_run_killed_at_a_taken_position__has_its_cost_too(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, VALUED, EVEN)
    with reopened_agent(chain, loaded) as agent:
        run = paused(chain, agent)
        run.look()
        own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
        control = run.ask("holdings", ("take", str(own.token_id)))
    assert in_child(lambda: die_in_cycle(chain, loaded, "after:write a liquidity position")) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        run = ControlledRun(chain, loaded, agent)
        assert ended(run, control) == (ControlState.FAILED, "interrupted")
        (taken,) = run.store.positions.changes()
        assert taken.amounts_raw == pytest.approx(own.entry_raw, rel=1e-3)


# --- Strategies.


def names(agent: Agent) -> list[str]:
    books = agent.step_input().layer(StrategiesState).books
    assert books is not None
    return [strategy_book.name for strategy_book in books.strategy_books]


def test_ledgers__are_adopted_as_shown_and_not_once_changed(chain: LocalChain, tmp_path: Path) -> None:
    loaded = paused_run(chain, tmp_path).loaded
    with reopened_agent(chain, loaded) as agent:
        run = paused(chain, agent)
        with raises_code(ConfigError, "not_open"):
            run.shown("holdings", ("deposits-to", "idle"))
        shown_plan_document: Any = run.shown("holdings", APPLY)
        assert shown_plan_document["document"]["changes"] == [
            "the strategies of the config differ from those of the books (idle will be opened)"
        ]
        assert [strategy["name"] for strategy in shown_plan_document["document"]["strategies"]["strategies"]] == ["up", "down", "idle"]
        assert f"in all {chain.balance('USDC') / USD:f}".rstrip("0") in " ".join(shown_plan_document["moves"])
        assert names(agent) == ["up", "down"], "a preview writes nothing"
        control = run.ask("holdings", APPLY, plan=shown_plan_document["plan_hash"])
        chain.set_balance("USDC", chain.balance("USDC") + 1)
        assert ended(run, control) == (ControlState.REFUSED, "plan_changed"), "by one base unit"
        assert names(agent) == ["up", "down"]
        control = run.ask("holdings", APPLY)
        assert ended(run, control) == (ControlState.DONE, "")
        assert names(agent) == ["up", "down", "idle"]
        require_sum(chain, agent)
        assert "old" not in {state.name for state in run.store.layer_repository(StrategyStore).ledger().states}
        with raises_code(ConfigError, "unchanged"):
            run.shown("holdings", APPLY)
        with raises_code(Refused, "plan_used"):
            run.ask("holdings", APPLY, plan=control.plan_hash)


def test_deposits__go_to_a_known_strategy_by_the_shown_plan(chain: LocalChain, tmp_path: Path) -> None:
    loaded = paused_run(chain, tmp_path, {}).loaded
    with reopened_agent(chain, loaded) as agent:
        run = paused(chain, agent)
        with raises_code(ConfigError, "unknown"):
            run.shown("holdings", ("deposits-to", "idle"))
        control = run.ask("holdings", ("deposits-to", "up"))
        api.route_transfers(loaded, "down")
        assert ended(run, control) == (ControlState.REFUSED, "plan_changed"), "another changed it meanwhile"
        assert ended(run, run.ask("holdings", ("deposits-to", "up"))) == (ControlState.DONE, "")
        assert api.strategies(agent)["flows_to"] == "up"
        plan_hash = run.shown("holdings", ("deposits-to", "all"))["plan_hash"]
        request = ControlSubmission(ControlKind.HOLDINGS, (("deposits-to", "all"),), "owner", ControlOrigin.API, plan_hash, lifetime_s=1)
        late = queue.submit_control(loaded.path, request, now=chain.now_s)
        chain.warp(5)
        assert ended(run, late) == (ControlState.EXPIRED, "expired")
        assert api.strategies(agent)["flows_to"] == "up"


@contextmanager
def killed_at(chain: LocalChain, folder: Path, moment: str) -> Iterator[ControlledRun]:
    """The run after one that was killed at this moment of applying new ledgers, which it does not do again."""
    loaded = paused_run(chain, folder).loaded
    with reopened_agent(chain, loaded) as agent:
        control = paused(chain, agent).ask("holdings", APPLY)
    assert in_child(lambda: die_in_cycle(chain, loaded, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        run = ControlledRun(chain, loaded, agent)
        version = run.store.layer_repository(StrategyStore).ledger().record_version
        assert ended(run, control) == (ControlState.FAILED, "interrupted")
        assert "look whether it took effect" in run.store.controls.newest(1)[0].reason
        assert run.store.layer_repository(StrategyStore).ledger().record_version == version, "it is not repeated"
        yield run
        require_sum(chain, agent)


def ledger_names(run: ControlledRun) -> set[str]:
    return {state.name for state in run.store.layer_repository(StrategyStore).ledger().states}


def test_run_killed_while_ledgers_are_written__has_none(chain: LocalChain, tmp_path: Path) -> None:
    with killed_at(chain, tmp_path, "inside:write the books of strategies") as run:
        assert names(run.agent) == ["up", "down"]
        assert "old" in ledger_names(run)
        chain.warp(1)
        assert ended(run, run.ask("holdings", APPLY)) == (ControlState.DONE, "")


def test_run_killed_after_ledgers_were_written__has_all(chain: LocalChain, tmp_path: Path) -> None:
    with killed_at(chain, tmp_path, "after:write the books of strategies") as run:
        assert names(run.agent) == ["up", "down", "idle"]
        assert "old" not in ledger_names(run)
        with raises_code(ConfigError, "unchanged"):
            run.shown("holdings", APPLY)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        pytest.param((), "holdings", "needs one argument", id="nothing"),
        pytest.param((APPLY, ("take", "1")), "holdings", "needs one argument", id="two changes"),
        pytest.param((("apply", "no"),), "apply", "'no' is not a switch", id="no switch"),
        pytest.param((("take", "x"),), "position", "'x' is not the number of a V3 position", id="no number"),
        pytest.param((("take", "\u0661"),), "position", "is not the number of a V3 position", id="a digit of another script"),
        pytest.param((("forget", "0x12"),), "position", "'0x12' is not an address", id="no address"),
    ],
)
def test_a_request_that_is_no_change_is_refused_with_its_field(
    chain: LocalChain, tmp_path: Path, fields: tuple[tuple[str, str], ...], field: str, message: str
) -> None:
    with reopened_agent(chain, trusted_config(chain, tmp_path, VALUED, EVEN)) as agent, raises_field(field, message) as refused:
        ControlledRun(chain, agent.context.loaded_config, agent).shown("holdings", *fields)
    assert refused.value.remedy
