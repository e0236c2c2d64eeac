"""Steps that owners asked for, recorded by the real engine on real contracts: a replay finds them as they were, and an altered one not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from agent import app as api
from agent.app.money import shutdown, transfers
from agent.app.positions.orders import LimitOrderRequest, swap_at_limit
from agent.app.settings import editing
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.writing import edits
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import USD, Changes, agent_on, fund, purse, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.attacks import attack
from tests.support.constants import HOME
from tests.support.on_chain.bad_tokens import FOUR, replace_token, with_guest
from tests.support.on_chain.screened_tokens import listed_token
from tests.support.on_chain.stops import FALL, with_stops
from tests.support.stores import edit_step_file

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_200, "WBTC": 1_900, "USDC": 2_900}
Document = dict[str, Any]
KEPT: Changes = {"record": {"dir": "steps"}, "wallet.payout_addresses": [HOME]}


def recording(loaded: LoadedConfig) -> LoadedConfig:
    """The same config with steps recorded beside it."""
    document = tomlkit.parse(loaded.path.read_text())
    document["record"] = {"dir": "steps"}
    loaded.path.write_text(tomlkit.dumps(document))
    return load_config(loaded.path)


def outcomes_by_request(document: Document) -> dict[str, set[tuple[str, str]]]:
    """By what asked for them, (decision, outcome) of the steps of a replay, every one of which replays as it was."""
    different = [step for step in document["steps"] if step["result"] not in ("same", "manual")]
    assert (document["exit"], different) == (0, []), different
    assert {step["requested_by"] for step in document["steps"] if step["result"] == "manual"} <= {"payout", "stop"}
    requested_by: dict[str, set[tuple[str, str]]] = {}
    for step in document["steps"]:
        requested_by.setdefault(step["requested_by"], set()).add((step["decision"], step["outcome"]))
    return requested_by


def alter_plans(folder: Path, document: Document, *commands: str) -> None:
    """The plan of one step that each of the commands asked for, changed: the replay says so, and where."""
    for command in commands:
        requested_by = {folder / "steps" / step["file"]: step["requested_by"] for step in document["steps"]}
        file = next(file for file, by in requested_by.items() if by == command and json.loads(file.read_text())["plan"] is not None)
        legs = json.loads(file.read_text())["plan"]["legs"]
        edit_step_file(file, plan__legs=[{**legs[0], "amount_in_raw": 7}, *legs[1:]])
    again_found = api.replay(folder / "steps")
    assert (again_found["different"], again_found["exit"]) == (len(commands), 14)
    different = [step for step in again_found["steps"] if step["result"] == "different"]
    assert {step_document["requested_by"] for step_document in different} == set(commands)
    assert all([difference["path"] for difference in step["differs"]] == ["plan.legs[0].amount_in_raw"] for step in different)


@pytest.mark.slow
def test_swaps_deposits_and_withdrawals__replay_as_they_were(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**KEPT, "policy.cooldown": "0s"}, TARGETS) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.set_balance("USDC", purse(chain).raw["USDC"] + 2_000 * USD)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HALT
        for answer in (False, True):
            transfers.invest(agent, send=True, confirm=lambda _, answer=answer: answer)  # type: ignore[misc]  # bound at once
        chain.set_balance("USDC", purse(chain).raw["USDC"] + USD)
        transfers.invest(agent, send=True, confirm=yes)
        assert agent.swap("WETH", "USDC", "100", send=True, confirm=yes).kind is OutcomeKind.REFUSED
        assert agent.swap("WETH", "USDC", "0.05", send=True, confirm=yes).kind is OutcomeKind.DONE
        for price in ("9000", "2900"):
            order = LimitOrderRequest("WETH", "USDC", "0.05", price, "4h")
            swap_at_limit(agent, order, send=True, confirm=yes, progress=lambda _: None)
        next(agent.run(send=True, confirm=yes, once=True))  # with the order that waits
        for answer in (False, True):
            transfers.withdraw(agent, transfers.WithdrawalRequest("4500", to=HOME), send=True, confirm=lambda _, answer=answer: answer)  # type: ignore[misc]
        shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
    document = api.replay(tmp_path / "steps")
    requested_by = outcomes_by_request(document)
    assert requested_by["invest"] == {("rebalance", "declined"), ("rebalance", "planned"), ("rebalance", "done"), ("hold", "hold")}
    assert requested_by["swap"] >= {("rebalance", "done")}
    assert any(outcome == "refused" for _, outcome in requested_by["swap"])
    assert requested_by["swap --price"] >= {("hold", "hold"), ("rebalance", "done")}
    assert requested_by["withdraw"] >= {("rebalance", "declined"), ("rebalance", "done")}
    assert requested_by["payout"] == {("payout", "done")}
    assert requested_by["stop"] >= {("rebalance", "done"), ("hold", "hold")}
    assert requested_by["agent"] >= {("hold", "hold"), ("halt", "halt")}
    alter_plans(tmp_path, document, "invest", "swap", "swap --price", "withdraw", "stop")


@pytest.mark.slow
def test_a_token_in_quarantine_replays_as_it_was(chain: LocalChain, tmp_path: Path) -> None:
    """It is shut out between the look and the plan, of a rebalance and of a swap by hand that is refused for it."""
    address, tell = listed_token(chain, "PausableToken")
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 10_000})
    tell("setPaused", True)
    with reopened_agent(chain, recording(with_guest(chain, tmp_path, address))) as agent:
        assert agent.swap("GUEST", "USDC", "100", send=True, confirm=yes).kind is OutcomeKind.REFUSED
        done = require_rebalance(agent)
        assert done.step_input.targets.quarantined_tokens
    document = api.replay(tmp_path / "steps")
    requested_by = outcomes_by_request(document)
    assert {outcome for _, outcome in requested_by["swap"]} == {"refused"}
    assert ("rebalance", "done") in requested_by["agent"]
    alter_plans(tmp_path, document, "agent")


@pytest.mark.slow
def test_exits_that_the_chain_refuses_late_replay_as_they_were(chain: LocalChain, tmp_path: Path) -> None:
    """By their stops, and by the end of the bot: one is refused when it is about to be sent, the others go on."""
    address = replace_token(chain, "GUEST", attack("BlocklistToken"), "GUEST", "GUEST", 18)
    fund(chain, {"WETH": 30_000, "WBTC": 25_000, "USDC": 20_000, "USDT": 15_000, "GUEST": 10_000})
    with reopened_agent(chain, recording(with_stops(chain, tmp_path, address))) as agent:
        agent.rebalance(send=True, confirm=yes)
        chain.move_market(FALL)
        chain.send(chain.contract(address, attack("BlocklistToken")).functions.setBlacklisted(agent.context.execution.router, True))
        assert address in agent.rebalance(send=True, confirm=yes).exits_tried
        agent.rebalance(send=True, confirm=yes)
        assert shutdown.stop(agent, to_stable=True, send=True, confirm=yes).state == "unfinished"
    requested_by = outcomes_by_request(api.replay(tmp_path / "steps"))
    assert ("rebalance", "refused") in requested_by["agent"]
    assert ("rebalance", "refused") in requested_by["stop"]


def test_an_asset_that_is_taken_away_replays_as_it_was(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000})
    loaded = trusted_config(chain, tmp_path, {"record": {"dir": "steps"}}, TARGETS)
    gone = edits.ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),))

    def agreed(*_: Any) -> bool:
        return True

    done = editing.remove_assets(
        loaded.path, gone, confirm=agreed, sale=editing.RemovalSale(agreed), transports=[chain.transport], clock=chain.clock
    )
    assert done.state == "removed"
    document = api.replay(tmp_path / "steps")
    assert outcomes_by_request(document)["edit --remove"] >= {("rebalance", "done"), ("hold", "hold")}
    alter_plans(tmp_path, document, "edit --remove")


def test_native_coin_that_is_unwrapped_replays_as_it_was(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 6_000, "USDC": 9_000})
    chain.set_native(10**18)
    coin = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH"}
    with agent_on(chain, tmp_path, {**KEPT, **coin}, {"WETH": "50%", "USDC": "50%"}) as agent:
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("1.5", "ETH", to=HOME), send=True, confirm=yes).state == "paid"
    assert outcomes_by_request(api.replay(tmp_path / "steps")) == {"withdraw": {("topup", "done")}, "payout": {("payout", "done")}}
