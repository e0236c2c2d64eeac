"""A command that names an amount and ends by a fault after it has sent: the same command reports that trade, and sends no second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from agent.app.agent import Agent
from agent.errors import NotAccepted, Retryable, TrimtabError
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.requests import MarginAccountRequest
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.localchain.world import WALLET_INDEX, dev_accounts
from agent.model import Intent, IntentKind, MarginDeposit, Unwrap
from tests.support.agents import allow, fund, reopened_agent, trusted_config, yes
from tests.support.endpoints import SEND, Reply, methods, passing_on, serve
from tests.support.fakes.clock import waiting_clock
from tests.support.futures import EVEN, futures_config_changes
from tests.support.markets.endpoints import endpoint_of
from tests.support.on_chain.proposals import PROPOSING, TWO, safe_of
from tests.support.text import raises_code
from tests.support.transactions import Killed

REASON = "transaction pool is full"
Command = Callable[[Agent, Callable[[str], None]], StepOutcome]


def swap(agent: Agent, progress: Callable[[str], None]) -> StepOutcome:
    return agent.swap("WETH", "USDC", "1", send=True, confirm=yes, progress=progress)


def unwrap(agent: Agent, progress: Callable[[str], None]) -> StepOutcome:
    return agent._run_request(Unwrap(10**17), True, yes, progress)


def deposit(agent: Agent, progress: Callable[[str], None]) -> StepOutcome:
    return agent.adjust_futures(MarginAccountRequest(MarginDeposit(100 * 10**6)), send=True, confirm=yes, progress=progress)


COMMANDS = {"swap": swap, "unwrap": unwrap, "deposit": deposit}


def trades(agent: Agent) -> list[Intent]:
    """Mined transactions that moved an amount."""
    return [
        intent
        for intent in agent.context.store.journal.intents()
        if intent.succeeded and intent.kind not in (IntentKind.APPROVE, IntentKind.CANCEL)
    ]


@dataclass
class Faults:
    """A node whose faults begin with an event of the trade, and end with the command."""

    chain: LocalChain
    agent: Agent
    act: Callable[[Faults], None]
    event: str
    refuses: bool = False
    forbids: bool = False
    seen: list[str] = field(default_factory=list)

    def progress(self, event: str) -> None:
        newest = self.agent.context.store.journal.intents(limit=1)
        if event == self.event and not self.seen and newest and newest[0].kind is not IntentKind.APPROVE:
            self.seen.append(event)
            self.act(self)


@contextmanager
def faulty(perps: LocalPerps, folder: Path, act: Callable[[Faults], None], event: str) -> Iterator[Faults]:
    chain = perps.chain
    fund(chain, {"WETH": 40_000, "USDC": 40_000})
    forward = passing_on(str(chain.url))
    faults: list[Faults] = []

    def answer(request: Any) -> Reply:
        if faults and faults[0].forbids:
            return Reply(b"no", status=403)
        if faults and faults[0].refuses and SEND in methods(request):
            return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32000, "message": REASON}}).encode())
        return forward(request)

    changes = futures_config_changes(perps, {"WETH": "100%"}) | {"chain.confirmations": 2}
    loaded = trusted_config(chain, folder, changes, EVEN)
    with serve(answer) as server, reopened_agent(chain, loaded, [endpoint_of(server.url, "one")]) as agent:
        faults.append(Faults(chain, agent, act, event))
        yield faults[0]


def refuse(faults: Faults) -> None:
    faults.refuses = True


def forbid(faults: Faults) -> None:
    faults.forbids = True


def reorganise(faults: Faults) -> None:
    late_s = faults.chain.now_s()
    faults.chain.transport.call("anvil_reorg", [1, []])
    faults.chain.transport.call("evm_setNextBlockTimestamp", [late_s + 1])


def interrupt(_: Faults) -> None:
    raise KeyboardInterrupt


def kill(_: Faults) -> None:
    raise Killed


FAULTS = {
    "refused by the node": (refuse, "before:send"),
    "block lost": (reorganise, "after:mined"),
    "endpoint forbids once it is final": (forbid, "after:final"),
    "ctrl-c once it is final": (interrupt, "after:final"),
    "kill once it is final": (kill, "after:final"),
    "ctrl-c once it is sent": (interrupt, "after:send"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("act", "event"), FAULTS.values(), ids=FAULTS)
def test_amount_is_traded_once_whatever_ends_its_command(
    perps_chain: LocalPerps, tmp_path: Path, command: Command, act: Callable[[Faults], None], event: str
) -> None:
    with faulty(perps_chain, tmp_path, act, event) as faults:
        agent = faults.agent
        outcome = None
        try:
            outcome = command(agent, faults.progress)
        except (TrimtabError, KeyboardInterrupt, Killed) as error:
            assert isinstance(error, NotAccepted) == faults.refuses, error
        assert faults.seen, "the fault came"
        faults.refuses = faults.forbids = False
        if outcome is None:
            outcome = command(agent, lambda _: None)
            assert "carried out before" in outcome.reason
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert len(trades(agent)) == 1
        assert agent.context.store.cycles.find_open_cycle() is None
        again = command(agent, lambda _: None)
        assert again.kind is OutcomeKind.DONE, again.reason
        assert "carried out before" not in again.reason
        assert len(trades(agent)) == 2, "once it was reported, the same command trades again"


def test_pending_swap__is_reported_once_it_is_mined(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Each command in between waits for it, asks nothing and sends nothing."""
    chain = anvil_chain
    fund(chain, {"WETH": 40_000, "USDC": 40_000})
    confirmed_outcomes: list[StepOutcome] = []

    def confirm(outcome: StepOutcome) -> bool:
        confirmed_outcomes.append(outcome)
        return True

    loaded = trusted_config(chain, tmp_path, {"chain.confirmations": 1, "execution.deadline": "30m"}, TWO)
    with reopened_agent(chain, loaded, clock=waiting_clock(chain)) as agent:

        def send() -> StepOutcome:
            return agent.swap("WETH", "USDC", "0.1", send=True, confirm=confirm)

        allow(chain, "WETH")
        chain.transport.call("evm_setAutomine", [False])
        for code in ("not_mined", "open_transaction", "open_transaction"):
            with raises_code(Retryable, code):
                send()
        chain.transport.call("evm_setAutomine", [True])
        chain.mine(2)
        outcome = send()
        assert "carried out before" in outcome.reason
        assert len(confirmed_outcomes) == 1
        assert len(trades(agent)) == 1


def by_key(chain: LocalChain) -> Callable[[dict[str, Any]], object]:
    """The wallet's owner signs the proposal elsewhere, and sends it."""

    def sign(document: dict[str, Any]) -> object:
        fields = {name: int(value, 16) if name not in ("to", "data") else value for name, value in document["transaction"].items()}
        signed = Account.sign_transaction(fields, dev_accounts()[WALLET_INDEX].private_key)
        return chain.w3.eth.wait_for_transaction_receipt(chain.w3.eth.send_raw_transaction(signed[0]), poll_latency=0.01)

    return sign


@pytest.mark.parametrize("is_safe", [False, True], ids=["key elsewhere", "safe"])
def test_proposed_revocation__hides_no_swap_that_was_signed(anvil_chain: LocalChain, tmp_path: Path, is_safe: bool) -> None:
    """After the swap an allowance of another token is left: its revocation is proposed before the swap is reported."""
    chain = anvil_chain
    if is_safe:
        safe, loaded = safe_of(chain, tmp_path)
        signs: Callable[[dict[str, Any]], object] = safe.execute
        owner = safe.address
        chain.transport.call("anvil_impersonateAccount", [owner])
        chain.transport.call("anvil_setBalance", [owner, hex(10**18)])
        approve = chain.token_contract("USDC").functions.approve(chain.addresses.swap_router_02, 2**255)
        chain.send(approve, owner, gas=100_000)
        chain.transport.call("anvil_setBalance", [owner, "0x0"])
    else:
        fund(chain, {"WETH": 10_000})
        loaded = trusted_config(chain, tmp_path, PROPOSING, TWO)
        signs = by_key(chain)
        allow(chain, "USDC")
    purposes = []
    with reopened_agent(chain, loaded) as agent:
        for _ in range(8):
            try:
                outcome = agent.swap("WETH", "USDC", "0.1", send=True, confirm=yes)
            except AwaitingExternalSignature as waiting:
                purposes.append(waiting.proposal["purpose"])
                signs(waiting.proposal)
                continue
            break
        assert "carried out before" in outcome.reason
        assert len(trades(agent)) == 1
    assert purposes.count("swap") == 1
    assert purposes.index("swap") < len(purposes) - 1, "a revocation followed"
