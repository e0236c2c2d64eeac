"""SIGKILL before every durable moment of the approval of an agent key (trimtab delegate, Hyperliquid): files, store, post. Restarted,
one key is approved, its file is in place, no approval is posted twice, and the file of every key that was ever approved is kept."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.documents.owner import AgentApprovalDocument
from agent.app.start.venue import approve_agent_key
from agent.config.loaded import LoadedConfig
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.signing import keys
from agent.venues.hyperliquid.connection import HyperliquidConnection
from tests.faults.rig import in_child
from tests.support.agents import fund, reopened_agent, trusted_config, yes
from tests.support.futures import EVEN
from tests.support.hyperliquid import venue_changes, venue_for
from tests.support.hyperliquid_server import HyperliquidServer
from tests.support.markets.step_kills import on_write
from tests.support.worlds import one_case

FIRST = ["file 1", "file 2", "write 1", "write 2", "post 1", "answer 1", "file 3"]
"""The key's file linked into place and its draft removed; nonce and approval recorded; posted; the file renamed."""
RENEWED = [*FIRST, "file 4"]
"""The old file is renamed before the new one."""
OFTEN = {(False, "answer 1"), (True, "file 4")}
"""Cases of every run; the others are slow."""
CHANGES = {"os.rename", "os.link", "os.remove"}


@dataclass(frozen=True)
class Wallet:
    """A wallet with margin at the venue; its agent's key belongs into `file`."""

    chain: LocalChain
    loaded: LoadedConfig
    server: HyperliquidServer
    file: Path

    def delegate(self, die_at: str = "", seen: Path | None = None) -> AgentApprovalDocument:
        """`trimtab delegate --send`, killed just before a moment; the moments passed go to `seen`."""
        counts: dict[str, int] = {}

        def passed(moment: str) -> None:
            counts[moment] = counts.get(moment, 0) + 1
            name = f"{moment} {counts[moment]}"
            if seen is not None:
                with seen.open("a", encoding="utf-8") as market:
                    market.write(name + "\n")
            if name == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def changed(name: str, args: tuple[Any, ...]) -> None:
            if name in CHANGES and any(self.file.name in str(arg) for arg in args):
                passed("file")

        self.chain.__dict__.pop("transport", None)  # a connection of its own
        if die_at or seen:
            sys.addaudithook(changed)  # for good, in a child
            post = HyperliquidConnection.exchange

            def exchange(connection: HyperliquidConnection, body: Any) -> Any:
                passed("post")
                answer = post(connection, body)
                passed("answer")
                return answer

            HyperliquidConnection.exchange = exchange  # type: ignore[method-assign]  # in a child
        with reopened_agent(self.chain, self.loaded) as agent:
            on_write(agent, lambda _: passed("write"))
            return approve_agent_key(agent, None, revokes=False, send=True, confirm=lambda _: True, ask=None)

    def posted(self) -> list[str]:
        """Agents of the approvals that the venue took, in order."""
        return [body["action"]["agentAddress"] for body in self.server.bodies if body["action"]["type"] == "approveAgent"]

    def kept(self) -> set[str]:
        """Agents whose keys are in files beside the config."""
        password = api.PasswordSource("TRIMTAB_AGENT_PASSWORD")
        files = [path for path in self.file.parent.glob(f"{self.file.name}*") if ".tmp" not in path.name]
        return {api.wallet_address(file, None, None, password, None, True)["address"].lower() for file in files}


@pytest.fixture
def wallet(anvil_session: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wallet]:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)
    monkeypatch.setenv("TRIMTAB_AGENT_PASSWORD", "seven sober owls at dusk")
    with one_case(anvil_session), venue_for(anvil_session) as server:
        server.agents = []
        server.bodies = []
        server.nonces = {}
        fund(anvil_session, {"WETH": 50_000, "USDC": 50_000})
        changes = venue_changes(server, {"ETH": "100%"})
        futures = changes["futures"]
        assert isinstance(futures, dict)
        del futures["agent_key_env"]
        futures["agent_keystore"] = "agent.json"
        loaded = trusted_config(anvil_session, tmp_path / "made", changes, EVEN)
        yield Wallet(anvil_session, loaded, server, loaded.path.parent / "agent.json")


@pytest.mark.slow
@pytest.mark.parametrize("is_renewal", [False, True])
def test_the_moments_are_all_of_them(wallet: Wallet, tmp_path: Path, is_renewal: bool) -> None:
    if is_renewal:
        wallet.delegate()
    log_file = tmp_path / "seen"
    assert in_child(lambda: wallet.delegate(seen=log_file)) == 0
    assert log_file.read_text(encoding="utf-8").split("\n")[:-1] == (RENEWED if is_renewal else FIRST)


@pytest.mark.parametrize(
    ("is_renewal", "moment"),
    [
        pytest.param(is_renewal, moment, marks=() if (is_renewal, moment) in OFTEN else pytest.mark.slow)
        for is_renewal, moments in ((False, FIRST), (True, RENEWED))
        for moment in moments
    ],
)
def test_approval_killed_anywhere__is_neither_lost_nor_repeated(wallet: Wallet, is_renewal: bool, moment: str) -> None:
    if is_renewal:
        wallet.delegate()
    before = wallet.posted()
    assert in_child(lambda: wallet.delegate(die_at=moment)) == -signal.SIGKILL, f"{moment} was never reached"
    was_posted = len(wallet.posted()) > len(before)
    assert was_posted is (moment in ("answer 1", "file 3", "file 4"))

    again_planned = wallet.posted()
    done = wallet.delegate()
    assert done["outcome"] == "done"
    assert done["agent"] is not None
    assert len(wallet.posted()) == len(again_planned) + (not was_posted), "an approval that the venue has is not repeated"
    assert len(set(wallet.posted())) == len(wallet.posted()), "no key is approved twice"
    [listed] = wallet.server.agents
    assert (listed.address, listed.name) == (done["agent"].lower(), "trimtab")
    assert set(wallet.posted()) <= wallet.kept(), "no approved key is lost"
    password = api.PasswordSource("TRIMTAB_AGENT_PASSWORD")
    assert api.wallet_address(wallet.file, None, None, password, None, True)["address"] == done["agent"]
    with reopened_agent(wallet.chain, wallet.loaded) as agent:
        assert agent.context.store.trust.agent_expiry_ms(done["agent"]) == listed.until_ms
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    assert wallet.server.signers[-1] == listed.address
