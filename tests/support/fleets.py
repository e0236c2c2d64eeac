"""Several portfolios on one chain, each with a wallet, a folder, variables, an endpoint and alerts of its own."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from agent.app.agent import Agent
from agent.app.service import StoppableClock
from agent.config.load import load_config
from agent.errors import TrimtabError
from agent.execution.step_context import StepOutcome
from agent.fleet.members import FleetOptions
from agent.fleet.metrics import FleetMetrics
from agent.fleet.run import run_fleet
from agent.localchain import LocalChain
from agent.observe.logs import Redactor, configure
from agent.signing.keys import TestAccountKey, load_key
from agent.units import floor_int
from tests.support.agents import ROOMY, trusted_config

Result = StepOutcome | TrimtabError


def wallet_of(account: int, chain: LocalChain) -> str:
    """Return the address of a published test account."""
    return load_key(TestAccountKey(account), chain.chain_id, ask=None).address


def add_portfolio(
    chain: LocalChain, folder: Path, name: str, account: int, usd: Mapping[str, int], changes: Mapping[str, object] | None = None
) -> Path:
    """Write NAME.toml of a published test account, as `add_wallet_portfolio`."""
    return add_wallet_portfolio(chain, folder, name, wallet_of(account, chain), usd, {"wallet.test_account": account} | dict(changes or {}))


def add_wallet_portfolio(
    chain: LocalChain, folder: Path, name: str, wallet: str, usd: Mapping[str, int], changes: Mapping[str, object]
) -> Path:
    """Write NAME.toml of a wallet with these values in dollars and equal targets of two tokens, with every contract trusted."""
    prices_usd = chain.deployed_world.prices_usd
    coins = {symbol: usd.get(symbol, 0) / prices_usd[symbol] for symbol in chain.tokens}
    chain.set_balances({symbol: floor_int(coins[symbol] * 10**token.decimals) for symbol, token in chain.tokens.items()}, wallet)
    own_folder = folder / name
    own_changes = {"wallet.address": wallet, "chain.rpc": [{"url": chain.url, "operator": "local"}]}
    loaded = trusted_config(chain, own_folder, ROOMY | own_changes | dict(changes), {"WETH": "50%", "USDC": "50%"})
    path = own_folder / f"{name}.toml"
    loaded.path.rename(path)
    return path


def edit(path: Path, **values: Any) -> None:
    """Write values of a config by table and key, such as policy__cooldown."""
    document = tomlkit.parse(path.read_text())
    for name, value in values.items():
        table, key = name.split("__")
        document[table][key] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    path.write_text(tomlkit.dumps(document))
    load_config(path)


@dataclass
class Fleet:
    """A run of several portfolios in a thread, with what it wrote."""

    clock: StoppableClock
    log: io.StringIO
    results: dict[str, list[Result]] = field(default_factory=dict)

    def lines(self, portfolio: str = "") -> list[dict[str, Any]]:
        """Return the log lines, of one portfolio or of the process."""
        every = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in every if line.get("portfolio", "") == portfolio]

    @property
    def look_count(self) -> int:
        """Looks of all portfolios so far."""
        return sum(map(len, self.results.values()))

    @property
    def failures(self) -> list[str]:
        """Why portfolios back off, in order."""
        every = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line["message"] for line in every if line["event"] == "backing off"]

    def note(self, name: str, _: Agent, result: Result) -> None:
        self.results.setdefault(name, []).append(result)

    def until(self, is_met: Callable[[Fleet], object], within_s: float = 60) -> None:
        """Wait until the condition holds."""
        deadline_s = time.monotonic() + within_s
        while not is_met(self):
            assert time.monotonic() < deadline_s, self.log.getvalue()[-4_000:]
            time.sleep(0.05)


@contextmanager
def running(
    chain: LocalChain,
    paths: Sequence[Path],
    every: str = "1h",
    *,
    sends: bool = True,
    offers: bool = False,
    metrics: FleetMetrics | None = None,
) -> Iterator[Fleet]:
    """Run the portfolios until the end of the context, which waits for their looks."""
    fleet = Fleet(StoppableClock(), io.StringIO())
    redactor = Redactor()
    configure("json", redactor, fleet.log)
    options = FleetOptions(every, sends, offers, look_counter=metrics)
    done: list[BaseException | None] = []

    def run() -> None:
        try:
            run_fleet(paths, options, redactor, fleet.note, fleet.clock, chain.clock, metrics=metrics)
            done.append(None)
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield fleet
    finally:
        fleet.clock.request_stop()
        thread.join(120)
        configure(None)
    assert done == [None], done
