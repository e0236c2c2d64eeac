"""Whole scenes on a local chain: commands one after the other as a user types them, at a stated gas price, and what holds after each."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.localchain.perpetuals import LocalPerps, futures_config
from agent.web.api.gate import API_PREFIX
from tests.cli.tools import CommandResult, in_process
from tests.support.agents import allowances
from tests.support.api import Client
from tests.support.constants import GWEI
from tests.support.dashboards import InProcessDocumentCache, Served
from tests.support.endpoints import Reply, passing_on, serve
from tests.support.preloaded import PreloadedProcess

HOUR_S = 3_700
"""More than an hour: the cooldown that init writes is over."""
HALF_HOUR_S = 1_900
"""More than the window of a TWAP."""
DEADLY = """
import itertools, os, signal, sys
from agent import wiring
from agent.chain.sender import QuorumSender
from agent.cli.main import main
from agent.localchain.contracts import ChainClock
from agent.localchain.nodes import AnvilNode

clock, number = ChainClock(AnvilNode(sys.argv.pop(1))), int(sys.argv.pop(1))
wiring.SystemClock.now_s = lambda _: clock.now_s()
wiring.SystemClock.sleep = lambda _, seconds: clock.sleep(seconds)
send, sent = QuorumSender.send, itertools.count(1)

def deadly(sender, signed):
    send(sender, signed)
    if next(sent) == number:
        os.kill(os.getpid(), signal.SIGKILL)

QuorumSender.send = deadly
main()
"""
"""A command on the clock of the chain at a URL, killed right after a transaction."""
PATIENCE_S = 120
LINES = 24
"""Height of the terminal; its width is set by COLUMNS."""


@contextmanager
def without_tips(chain: LocalChain) -> Iterator[str]:
    """Serve the chain by an endpoint that suggests no tip, so that gas costs the base fee; anvil suggests a gwei."""
    forward = passing_on(str(chain.url))

    def answer(request: Any) -> Reply:
        answers = json.loads(forward(request).body)
        for call, result in zip(*((part if isinstance(part, list) else [part]) for part in (request, answers)), strict=True):
            if call["method"] == "eth_maxPriorityFeePerGas":
                result["result"] = "0x0"
        return Reply(json.dumps(answers).encode())

    with serve(answer) as served:
        yield served.url


@dataclass
class Scene:
    """A wallet on the chain, the config that init writes for it, and its owner at a terminal of 80 columns."""

    chain: LocalChain
    folder: Path
    gwei: Fraction
    command: Callable[..., CommandResult]
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.folder / "trimtab.toml"

    def set_gas(self) -> None:
        """Let the next block have the scene's base fee."""
        assert isinstance(self.chain.node, AnvilNode)
        self.chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(int(self.gwei * GWEI)))

    def run(self, *args: str, code: int = 0) -> CommandResult:
        """Run a command at the scene's gas price, in a block of its own."""
        self.set_gas()
        self.chain.mine()
        return self.run_here(*args, code=code)

    def run_here(self, *args: str, code: int = 0) -> CommandResult:
        """Run a command at the newest block."""
        answer = self.command(*args, "--config", str(self.config))
        assert answer.code == code, f"{args}: {answer.why}{answer.out}"
        return answer

    def say(self, *args: str, code: int = 0) -> str:
        """Return what a command prints, with its notes, unwrapped."""
        answer = self.run(*args, code=code)
        return answer.out + answer.err

    def ask(self, *args: str, code: int = 0) -> Any:
        """Return the document of a command."""
        return self.run(*args, "--json", code=code).json

    def init(self, targets: Mapping[str, str], *more: str) -> str:
        """Write the config as a newcomer does; return what init printed."""
        network = self.folder / "local.toml"
        futures = "" if self.chain.perps is None else futures_config(self.chain.perps, {"WETH": "60%", "WBTC": "-40%"})
        network.write_text(self.chain.config_text(targets=targets) + futures)
        shares = [part for symbol, share in targets.items() for part in ("--target", f"{symbol}={share}")]
        options = ("--network", str(network), "--wallet", self.chain.wallet.address, "--rpc", "RPC_A=local")
        return self.say("init", *options, *shares, *more, "--yes")

    def edit_file(self, old: str, new: str) -> None:
        """Replace a piece of the config by hand."""
        text = self.config.read_text()
        assert text.count(old) == 1, old
        self.config.write_text(text.replace(old, new))

    @contextmanager
    def served(self) -> Iterator[Client]:
        """Serve the API of this portfolio."""
        token = self.command("token", "add", f"at-{self.chain.now_s()}", "--scope", "read", "--config", str(self.config), "--json")
        with Served(board=InProcessDocumentCache(str(self.config), self.config.with_name("trimtab.db"))) as served:
            yield Client(served, token.json["token"])
        self.command("token", "revoke", token.json["name"], "--config", str(self.config))

    def moment(self, now: bool = False) -> dict[str, Any]:
        """Return status, pnl, lots and history; assert that command and API show the same, and that value and profit are of one block.

        `now` records a valuation first, for an account whose funding changes with each second.
        """
        if now:
            self.run("pnl", "--now")
        status = self.run_here("status", "--json").json
        lots = self.run_here("books", "lots", "--json").json
        profit, history = (self.run_here(name, "--json").json for name in ("pnl", "history"))
        with self.served() as client:
            documents = {name: client.ask(f"{API_PREFIX}/{name}").json for name in ("status", "pnl", "history")}
        assert documents["pnl"] == profit
        assert documents["history"] == history
        assert documents["status"]["block_hash"] == status["block_hash"]
        assert documents["status"]["total_value"] == status["total_value"]
        assert documents["status"]["holdings"] == status["holdings"]
        if history["values"]:
            newest = history["values"][0]
            assert newest["value"] == profit["value"] == profit["periods"][-1]["end_value"]
            assert profit["until"] == lots["valued"]
            weights = {item["symbol"]: item["weight_bps"] for item in status["holdings"]}
            assert newest["value"] == status["total_value"]
            assert newest["weights_bps"] == weights
        return {"status": status, "pnl": profit, "lots": lots, "history": history}

    def require_rest(self) -> None:
        """Assert that nothing is open: transactions, allowances, cycle, gradual executions and limit orders."""
        assert not any(row["open"] for row in self.ask("txs")["transactions"])
        assert not any(allowances(self.chain).values())
        assert not self.ask("limit")["orders"]

    def confirm_prices(self) -> None:
        """Mine the blocks that policy.confirm_blocks asks for."""
        self.chain.mine(4)

    def order(self, kind: str) -> Any:
        """Return the conditional order of this kind."""
        (order,) = [order for order in self.ask("orders")["orders"] if order["kind"] == kind]
        return order

    def weights(self) -> dict[str, int]:
        """Return the weights of status in basis points by symbol."""
        return {item["symbol"]: item["weight_bps"] for item in self.ask("status")["holdings"]}

    def deposit(self, usdc: int) -> None:
        """Let this much arrive in the wallet."""
        self.chain.set_balance("USDC", self.chain.balance("USDC") + usdc * 10**6)

    def paid_to(self, address: str) -> int:
        """Return the numeraire that an address holds, in base units."""
        return self.chain.balance("USDC", address)

    def move_futures(self, perps: LocalPerps, paused: Sequence[str] = (), **factors: Fraction) -> None:
        """Multiply prices on spot pools, feeds, indexes and virtual pools, except those of paused markets."""
        usd = self.chain.deployed_world.prices_usd
        moved = {symbol: usd[symbol] * factor for symbol, factor in factors.items()}
        self.chain.move_market(moved)
        perps.move_pools({symbol: price for symbol, price in moved.items() if symbol not in paused}, self.chain.clock.sleep)
        if not paused:
            self.chain.warp(HALF_HOUR_S)
        self.confirm_prices()

    def killed_at_send(self, number: int, *args: str) -> None:
        """Run a command as a process of its own, which is killed right after its `number`-th transaction left."""
        self.set_gas()
        self.chain.mine()
        command = [sys.executable, "-c", DEADLY, str(self.chain.url), str(number), *args, "--config", str(self.config)]
        killed = PreloadedProcess(command, stderr=subprocess.PIPE, text=True)
        _, output = killed.communicate(timeout=PATIENCE_S)
        assert killed.returncode == -signal.SIGKILL, output


def beyond_triggers(status: Mapping[str, Any]) -> dict[str, str]:
    """Return the assets beyond their trigger in the document of `status`, each with its side of the target: over or under."""
    return {
        asset["symbol"]: "over" if asset["weight_bps"] > asset["target_bps"] else "under"
        for asset in status["zone"]["assets"]
        if not asset["trigger_bps"][0] <= asset["weight_bps"] <= asset["trigger_bps"][1]
    }


@contextmanager
def scene_on(
    chain: LocalChain, folder: Path, gwei: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """Open a scene; its clock is the chain's, and waiting mines blocks at its gas price."""

    def sleep(_: object, seconds: float) -> None:
        scene.set_gas()
        chain.clock.sleep(seconds)

    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    monkeypatch.setattr(wiring.SystemClock, "sleep", sleep)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", str(LINES))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with without_tips(chain) as url:
        monkeypatch.setenv("RPC_A", url)
        scene = Scene(chain, folder, Fraction(gwei), lambda *args: in_process(capfd, monkeypatch, *args))
        yield scene
