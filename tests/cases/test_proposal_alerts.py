"""Messages about proposals: a run tells the owner once that one waits, and once that it would fail; the chain and the webhook are real."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.past import step_history
from agent.app.records import maintenance
from agent.app.service import StoppableClock, report_run
from agent.config.load import load_config
from agent.errors import Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature
from agent.figures import as_sentence
from agent.localchain import LocalChain
from agent.model import OrderStage, StepInput
from agent.units import format_time
from tests.cli.tools import in_process
from tests.support.agents import fund, reopened_agent, trusted_config, yes
from tests.support.alert_receivers import ReceivedMessages, webhook
from tests.support.on_chain.proposals import PROPOSING, TWO, proposal, safe_of
from tests.support.text import mentions

TARGET = ("alerts", {"targets": [{"name": "hook", "url_env": "HOOK"}]})
Cycle = Callable[[], None]


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReceivedMessages]:
    received = ReceivedMessages()
    with webhook(received) as url:
        monkeypatch.setenv("HOOK", url)
        yield received


def opened_run(stack: ExitStack, agent: Agent) -> Cycle:
    """One cycle of a run that sends, with its alerts."""
    service = stack.enter_context(report_run(agent, StoppableClock(agent.context.clock), "1h"))

    def cycle() -> None:
        for result in agent.run(send=True, confirm=yes, once=True):
            service.on_cycle(result)

    return cycle


def execute(agent: Agent) -> None:
    for owner in (5, 6):
        api.sign_proposal(agent, {"test_account": owner}, None, yes)
    api.execute_proposal(agent, {"test_account": 9}, send=True, confirm=yes)


def test_waiting_proposal__is_an_alert_once(anvil_chain: LocalChain, tmp_path: Path, box: ReceivedMessages) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, TARGET)
    with ExitStack() as stack:
        agent = stack.enter_context(reopened_agent(anvil_chain, loaded))
        cycle = opened_run(stack, agent)
        for _ in range(3):
            cycle()
        (document,) = api.list_proposals(agent)["proposals"]
        box.until(1)
    (item,) = box.items
    assert item["title"] == "trimtab: a proposal waits"
    assert item["text"].startswith(f"Proposed until {format_time(document['expires_s'])}: approve the router for ")
    assert item["text"].endswith(
        f"({document['id']}). Have 2 of 3 owners sign it with trimtab proposal sign {document['id']}, and anyone execute it with trimtab"
        f" proposal execute {document['id']} --send (an approval is a proposal of its own, because this chain has no MultiSendCallOnly at"
        " 0x9641d764fc13c8B624c04430C7356C1C7C8102e2)."
    )


def test_alerts_of_a_run__name_their_config_in_each_command(
    anvil_chain: LocalChain, tmp_path: Path, box: ReceivedMessages, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, TARGET, makes_batches=True)
    config_option = f"--config {loaded.path}"
    in_process(capfd, monkeypatch, "run", "--once", "--send", "--yes", "--config", str(loaded.path))
    box.until(1)
    instruction = (
        rf"trimtab proposal sign {config_option} (\w+), and anyone execute it with trimtab proposal execute {config_option} \1 --send\.$"
    )
    assert re.search(instruction, box.texts[0])
    anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * 9 / 10}, twap_follows=False)
    in_process(capfd, monkeypatch, "run", "--once", "--send", "--yes", "--config", str(loaded.path))
    box.until(2)
    assert f"trimtab cancel {config_option} --send" in box.texts[1]


@pytest.mark.parametrize("once", [True, False])
def test_proposal_of_a_run__needs_a_second_command_only_after_a_single_cycle(anvil_chain: LocalChain, tmp_path: Path, once: bool) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent, closing(agent.run(send=True, confirm=yes, once=once)) as results:
        waiting = next(results)
    assert isinstance(waiting, AwaitingExternalSignature)
    assert ("then let this run go on: it settles" in waiting.remedy) is not once
    assert ("then run the command again: it settles" in waiting.remedy) is once


def test_failing_proposal__alerts_once_and_the_next_by_itself(chain: LocalChain, tmp_path: Path, box: ReceivedMessages) -> None:
    _, loaded = safe_of(chain, tmp_path, TARGET)
    with ExitStack() as stack:
        agent = stack.enter_context(reopened_agent(chain, loaded))
        proposal(agent)
        execute(agent)
        cycle = opened_run(stack, agent)
        cycle()
        (swap,) = api.list_proposals(agent)["proposals"]
        box.until(1)
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * 9 / 10}, twap_follows=False)
        for _ in range(2):
            cycle()
        box.until(2)
        assert [item["title"] for item in box.items] == ["trimtab: a proposal waits", "trimtab: a proposal would fail"]
        expected = ("Would fail now", "prices left its minimums", swap["id"], format_time(swap["expires_s"]), "trimtab cancel --send")
        assert mentions(box.texts[1], *expected)
        waiting, failing = (state["text"] for state in api.alerts(agent)["open"])
        assert waiting.startswith("Proposed until ")
        assert failing.startswith("Would fail now")
        chain.warp(1_801)
        cycle()
        (later,) = api.list_proposals(agent)["proposals"]
        box.until(3)
        (state,) = api.alerts(agent)["open"]
        assert later["id"] in state["text"]
    assert later["id"] != swap["id"]
    assert later["id"] in box.texts[2]
    assert len(box.items) == 3


def test_executed_proposal__is_noted_once_and_in_the_history(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """While it waits, its step waits too, and is no error."""
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent, report_run(agent, StoppableClock(agent.context.clock), "1h") as service:

        def notes_of_cycle() -> tuple[str, ...]:
            for result in agent.run(send=True, confirm=yes, once=True):
                service.on_cycle(result)
            return service.pop_screen_notes()

        def newest_outcomes() -> list[str]:
            return [step["outcome"] for step in step_history.history(loaded.path)["steps"]]

        assert notes_of_cycle() == notes_of_cycle() == ()
        (document,) = api.list_proposals(agent)["proposals"]
        assert newest_outcomes() == ["waiting"]
        execute(agent)
        (note,) = notes_of_cycle()
        assert note.startswith(f"The proposal {document['id']} was executed in 0x")
        assert document["description"] in note
        assert notes_of_cycle() == ()
        assert {"done"} <= {*newest_outcomes()} <= {"done", "hold"}
        (reason,) = [step["reason"] for step in step_history.history(loaded.path)["steps"] if step["outcome"] == "done"]
        assert mentions(reason, document["id"], "executed in 0x", " at 20")


def test_rejected_proposal__is_noted_as_rejected(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent, report_run(agent, StoppableClock(agent.context.clock), "1h") as service:
        (waiting,) = agent.run(send=True, confirm=yes, once=True)
        service.on_cycle(waiting)
        (document,) = api.list_proposals(agent)["proposals"]
        for owner in (5, 6):
            api.sign_proposal(agent, {"test_account": owner}, None, yes)
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
        execute(agent)
        for result in agent.run(send=True, confirm=yes, once=True):
            service.on_cycle(result)
        (note,) = service.pop_screen_notes()
    assert note.startswith(f"The proposal {document['id']} was rejected by the owners: 0x")


def test_proposal_for_a_wallet__names_its_file(anvil_chain: LocalChain, tmp_path: Path, box: ReceivedMessages) -> None:
    fund(anvil_chain, {"WETH": 10_000})
    loaded = trusted_config(anvil_chain, tmp_path, PROPOSING | dict([TARGET]), TWO)
    with ExitStack() as stack:
        agent = stack.enter_context(reopened_agent(anvil_chain, loaded))
        cycle = opened_run(stack, agent)
        cycle()
        box.until(1)
        cycle()
    (text,) = box.texts
    assert text.endswith("Have the transaction in its file signed and sent.")


def test_stop_that_is_set_while_a_proposal_waits__is_armed_by_the_next_cycle(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        waiting = proposal(agent)
    api.set_orders(loaded.path, "WETH", {"stop_loss": "10%"})
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        assert proposal(agent)["id"] == waiting["id"]
        (order,) = agent.context.store.orders.orders_and_version()[0]
    assert order.stage is OrderStage.ARMED


def no_answer(_: Agent) -> StepInput:
    raise Retryable("no endpoint answers")


def test_exit_behind_a_waiting_proposal__fires_and_stays_fired(
    chain: LocalChain,
    tmp_path: Path,
    box: ReceivedMessages,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A purchase waits for its signatures while the price falls below the stop and rises again."""
    stop = ("portfolio.assets.0.stop_loss", "10%")
    _, loaded = safe_of(chain, tmp_path, TARGET, stop, makes_batches=True)
    price = chain.deployed_world.prices_usd["WETH"]
    with ExitStack() as stack:
        agent = stack.enter_context(reopened_agent(chain, loaded))
        cycle = opened_run(stack, agent)
        cycle()
        (waiting,) = api.list_proposals(agent)["proposals"]
        chain.move_market({"WETH": price * 8 / 10}, twap_follows=False)
        chain.mine(4)
        cycle()
        (order,) = agent.context.store.orders.orders_and_version()[0]
        assert order.stage is OrderStage.FIRED
        chain.warp(5)
        orders = api.standing_orders(agent)
        (sale_text,) = orders["target_reasons"]
        blocked_text = " ".join(orders["blocked_exits"])
        assert mentions(blocked_text, f"The proposal {waiting['id']} ", "stop_loss of WETH has fired", "cancel --send")
        assert mentions(sale_text, "WETH is to be sold: stop_loss of WETH fired at ", format_time(order.since_s))
        (warning,) = [text for text in agent.status().warnings if waiting["id"] in text]
        held_up = api.list_proposals(agent)["held_up"]
        assert f"{as_sentence(held_up)}." in warning
        listed = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path))
        assert mentions(
            listed.out, "stop_loss of WETH has fired, and nothing is sold before this proposal is executed or given up: trimtab"
        )
        chain.move_market({"WETH": price}, twap_follows=False)
        chain.mine(4)
        cycle()
        assert agent.context.store.orders.orders_and_version()[0] == (order,)
        with monkeypatch.context() as unread:
            unread.setattr(Agent, "step_input", no_answer)
            assert api.list_proposals(agent)["held_up"].endswith("could not be checked: no endpoint answers")
        maintenance.cancel(agent)
        cycle()
        (exit_proposal,) = api.list_proposals(agent)["proposals"]
        chain.move_market({"WETH": price * 7 / 10}, twap_follows=False)
        with pytest.raises(Refused, match="would fail now") as refused:
            api.sign_proposal(agent, {"test_account": 5}, None, yes)
        assert refused.value.remedy.startswith("do not sign it, nor execute it: trimtab cancel --send withdraws it, and ")
        failing_text = " ".join(api.standing_orders(agent)["blocked_exits"])
        assert mentions(failing_text, f"The proposal {exit_proposal['id']} ", "would fail now", "trimtab cancel --send withdraws it")
        box.until(4)
    assert mentions(exit_proposal["why"], "stop_loss of WETH", "is sold")
    assert mentions(exit_proposal["description"], "then stop_loss of WETH at ", "UTC): sell ", " WETH for USDC")
    for text in (warning, next(text for text in box.texts if "stop_loss of WETH" in text)):
        assert mentions(text, "stop_loss of WETH has fired", waiting["id"], "trimtab cancel --send")
