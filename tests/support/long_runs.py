"""A year of a wallet on a real node: recorded prices move every pool, deposits and withdrawals occur, and an independent count checks the
agent.
"""

from __future__ import annotations

import csv
import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from agent import app as api
from agent import wiring
from agent.accounting import entries
from agent.app.agent import Agent
from agent.app.money.transfers import WithdrawalRequest, invest, withdraw
from agent.app.service import RunEventHandler, report_run
from agent.app.settings.editing import TextEdit, edit
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.chain import FEED_DECIMALS
from agent.observe.metrics import metrics_text
from agent.units import NATIVE
from tests.support.agents import ROOMY, fund, purse, reopened_agent, trusted_config, yes
from tests.support.constants import HOME
from tests.support.endpoints import Reply, Served, serve
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import RecordingTransport
from tests.support.stores import store_lock
from tests.support.worlds import DATA

RECORDED = DATA / "weekly_2021.csv"
WORLDS_OWN = "2021-06-18"
"""The week whose prices are those of the world as deployed: its pools are deep on both sides of them."""
WEEK_S = 7 * 86_400
HELD_USD = {"WETH": 16_000, "WBTC": 12_000, "LINK": 4_000, "USDC": 8_000}
TARGETS = {"WETH": "40%", "WBTC": "30%", "LINK": "10%", "USDC": "20%"}
SETTINGS = ROOMY | {
    "chain.confirmations": 1,
    "limits.price_impact": "2%",
    "limits.payout_per_day": "off",
    "portfolio.max_live_value": "off",
    "wallet.payout_addresses": [HOME],
    "policy.trigger": {"kind": "threshold", "relative": "15%"},
}


def weeks() -> list[tuple[str, dict[str, Fraction]]]:
    """Return (date, prices of the world) of each week: the recorded returns relative to the week of the world's own prices."""
    with RECORDED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    own = next(row for row in rows if row["date"] == WORLDS_OWN)
    base = {"WETH": 3_000, "WBTC": 60_000, "LINK": 15}
    return [(row["date"], {s: base[s] * Fraction(row[s]) / Fraction(own[s]) for s in base}) for row in rows]


@dataclass
class Year:
    """The wallet and an independent observer that reads only the contracts: values around each flow, and the flows."""

    chain: LocalChain
    folder: Path
    loaded: LoadedConfig
    growth: Fraction = Fraction(1)
    since: Fraction | None = None
    fired: list[str] = field(default_factory=list)
    trades: int = 0
    native_wei: int = 0

    def value(self) -> Fraction:
        """Return the value of the managed tokens in dollars at the feeds' answers, from the contracts; the native coin is gas money."""
        now = purse(self.chain)
        usd = {symbol: self._feed(symbol) for symbol in HELD_USD}
        value = sum((now.raw[s] * usd[s] / 10 ** self.chain.tokens[s].decimals for s in HELD_USD), Fraction(0))
        return value / usd["USDC"]

    def gas(self) -> Fraction:
        """Return the value of native coin spent since the last call, in dollars: gas, paid from outside the portfolio."""
        native_wei = purse(self.chain).native_wei
        spent, self.native_wei = self.native_wei - native_wei, native_wei
        return spent * self._feed("WETH") / 10**18 / self._feed("USDC")

    def _feed(self, symbol: str) -> Fraction:
        return Fraction(self.chain.feed_contract(symbol).functions.latestRoundData().call()[1], 10**FEED_DECIMALS)

    def valued(self, agent: Agent, came: Fraction = Fraction(0)) -> None:
        """Value the portfolio by ledger and observer; `came` is the deposit (negative: withdrawal) just before, in dollars."""
        api.refresh_ledger(agent)
        self.linked(self.value(), came)

    def linked(self, now: Fraction, came: Fraction = Fraction(0)) -> None:
        """Add the growth since the last valuation, excluding the flow at its end and net of gas."""
        gas = self.gas()
        if self.since is not None:
            self.growth *= (now - came - gas) / self.since
        self.since = now

    def looked(self, agent: Agent, prices: dict[str, Fraction], after_s: int) -> StepOutcome:
        """Advance the time, move the market, and run a cycle that may trade; the ledger must equal the chain to the wei."""
        self.chain.warp(after_s, refresh_feeds=False)
        self.chain.move_market(prices)
        outcome = agent.rebalance(send=True, confirm=yes)
        self.linked(self.value())
        assert outcome.kind in (OutcomeKind.HOLD, OutcomeKind.DONE), outcome.reason
        self.trades += outcome.kind is OutcomeKind.DONE
        self.fired += [outcome.reason] if "stop_loss" in outcome.reason and outcome.kind is OutcomeKind.DONE else []
        self.require_equal(agent)
        return outcome

    def require_equal(self, agent: Agent) -> None:
        """Assert that the ledger's balances equal those of the contracts."""
        api.refresh_ledger(agent)
        now = purse(self.chain)
        sums = entries.account_balances(agent.context.store.ledger.entries())
        assert {s: sums.get((entries.WALLET, self.chain.tokens[s].address), 0) for s in HELD_USD} == {s: now.raw[s] for s in HELD_USD}
        assert sums.get((entries.WALLET, NATIVE), 0) == now.native_wei

    # --- The owner's actions.
    def deposit(self, agent: Agent, symbol: str, amount: int) -> None:
        """Deposit whole coins and invest them."""
        self.valued(agent)
        raw = amount * 10 ** self.chain.tokens[symbol].decimals
        self.chain.set_balance(symbol, self.chain.balance(symbol) + raw)
        self.linked(self.value(), amount * self._feed(symbol) / self._feed("USDC"))
        assert invest(agent, send=True, confirm=lambda _: True).is_recorded
        self.valued(agent)

    def withdrawal(self, agent: Agent, amount: int) -> None:
        """Withdraw dollars to HOME; assets are sold for any shortfall."""
        self.valued(agent)
        had = self.chain.balance("USDC", HOME)
        done = withdraw(agent, WithdrawalRequest(str(amount), to=HOME), send=True, confirm=lambda _: True)
        assert done.state == "paid", done.reason
        assert self.chain.balance("USDC", HOME) - had == amount * 10**6
        self.valued(agent, -Fraction(amount))

    def edited(self, changes: ConfigChanges) -> None:
        """Edit the config by command, after which a new process reads it."""
        edit_outcome = edit(
            self.loaded.path,
            TextEdit(lambda text: apply_changes(text, changes)),
            confirm=lambda _edit, _agent: True,
            transports=[self.chain.transport],
            clock=self.chain.clock,
        )
        assert edit_outcome.state == "written", edit_outcome
        self.loaded = load_config(self.loaded.path)

    @contextmanager
    def process(self) -> Iterator[Agent]:
        """Open an agent in a new session over the store."""
        with reopened_agent(self.chain, self.loaded) as agent:
            yield agent


@contextmanager
def year(chain: LocalChain, folder: Path) -> Iterator[Year]:
    """Yield a year that begins at the first week's prices, with a funded wallet and an open ledger."""
    chain.move_market(weeks()[0][1])
    fund(chain, HELD_USD)
    life = Year(chain, folder, trusted_config(chain, folder, SETTINGS, TARGETS))
    with life.process() as agent:
        api.refresh_ledger(agent)
        life.since = life.value()
        life.native_wei = purse(chain).native_wei
    yield life


# --- Thousands of cycles of one agent in one process, with trades among them: growth of memory and store (R8.9).


SOAK_TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 50_000, "USDC": 50_000}
PRICES = (Fraction(2, 3), Fraction(3, 2))
"""Factors of WETH's price, in turn: from any edge of the trigger of init, each moves the portfolio beyond the other side's trigger."""
PAUSED_PART = 4
"""For a fourth of the cycles after each move the kill switch is on: plans are made and refused, which takes most memory."""
KEEP_STEPS = 40
FAULT_KINDS = ("endpoint", "store", "clock")
FAULT_SHARE = Fraction(1, 12)
"""Share of the looks without a fault before which one begins."""
FAULT_LOOKS = 2
"""A calm look writes after it, so that a locked store shows at the second one."""
MOST_OFF_S = 20
"""Seconds that the clock is off at most."""
PAGE = b"<!doctype html><title>Checking your browser</title>"
SICK_REPLIES = (
    Reply(PAGE),
    Reply(PAGE, status=403),
    Reply(b"", status=503),
    Reply(b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "limit exceeded"}}', status=429),
    Reply(b'[{"jsonrpc": "2.0", "id"'),
    Reply(b"", cut="reset"),
)


class Faults:
    """Faults of endpoint, store and clock, each for FAULT_LOOKS looks, at looks drawn from a seed."""

    def __init__(self, chain: LocalChain, store_file: Path, seed: int, sick_server: Served) -> None:
        self.clock = chain_clock(chain)
        self.endpoint = RecordingTransport(chain.transport, chain.transport.operator)
        self.looks_by_kind: Counter[str] = Counter()
        self._healthy_line = chain.transport
        self._store_file = store_file
        self._random = Random(seed)
        self._sick_server = sick_server
        self._sick_line = EndpointProvider(sick_server.url, self.endpoint.operator, 10, attempts=1)
        self._kind = ""
        self._looks_left = 0
        self._lock = ExitStack()

    @property
    def is_present(self) -> bool:
        """Return whether something is out of order."""
        return bool(self._kind)

    def before_look(self) -> None:
        """End a fault whose time is over, and draw whether one begins, and which."""
        if self._looks_left == 0:
            self.end()
            if self._random.random() < FAULT_SHARE:
                self._begin(self._random.choice(FAULT_KINDS))
        if self._looks_left:
            self._looks_left -= 1
            self.looks_by_kind[self._kind] += 1

    def _begin(self, kind: str) -> None:
        self._kind = kind
        self._looks_left = FAULT_LOOKS
        if kind == "endpoint":
            self.endpoint.line = self._sick_line
        elif kind == "store":
            self._lock.enter_context(store_lock(self._store_file))
        else:
            self.clock.time_s = self._random.choice((-1, 1)) * self._random.randint(1, MOST_OFF_S)

    def end(self) -> None:
        """Bring endpoint, store and clock in order; keep nothing of what was asked meanwhile."""
        self._kind = ""
        self._looks_left = 0
        self._lock.close()
        self.endpoint.line = self._healthy_line
        self.clock.time_s = 0
        self._sick_server.seen.clear()
        self._sick_server.headers.clear()


@contextmanager
def faults_of(chain: LocalChain, store_file: Path, seed: int) -> Iterator[Faults]:
    """Yield the faults of a run; what a sick endpoint answers is drawn from the seed too."""
    answers = Random(seed)
    with serve(lambda _: answers.choice(SICK_REPLIES)) as server:
        faults = Faults(chain, store_file, seed, server)
        try:
            yield faults
        finally:
            faults.end()


@dataclass(frozen=True)
class ProcessFigures:
    """Figures of the process after so many cycles: heap (0 if not traced), resident memory and store in bytes; living objects."""

    looks: int
    heap: int
    resident: int
    objects: int
    store: int
    steps: int


@dataclass(frozen=True)
class SoakReport:
    """A soak: marks in order, and the number of cycles by outcome."""

    marks: tuple[ProcessFigures, ...]
    outcomes: dict[str, int]

    def growth(self, name: str, after: int) -> float:
        """Return the growth of a figure per cycle (least squares), from the first mark at or after `after` cycles to the last."""
        later_marks = [mark for mark in self.marks if mark.looks >= after]
        mean_x = sum(mark.looks for mark in later_marks) / len(later_marks)
        mean_y = sum(getattr(mark, name) for mark in later_marks) / len(later_marks)
        return sum((m.looks - mean_x) * (getattr(m, name) - mean_y) for m in later_marks) / sum(
            (m.looks - mean_x) ** 2 for m in later_marks
        )

    def document(self, after: int) -> dict[str, Any]:
        """Return the document of the soak."""
        per_look = {name: round(self.growth(name, after), 2) for name in ("heap", "resident", "objects", "store")}
        return {"outcomes": self.outcomes, "bytes_per_look_after": after, "per_look": per_look, "marks": [asdict(m) for m in self.marks]}


def soak_config(chain: LocalChain, folder: Path) -> LoadedConfig:
    """Fund the wallet, and load a config whose limits leave every trade to the market."""
    fund(chain, HELD)
    changes = ROOMY | {
        "portfolio.max_live_value": "off",
        "limits.daily_loss": "off",
        "limits.gas_per_day": "off",
        "service": {"keep_steps": KEEP_STEPS},
    }
    return trusted_config(chain, folder, changes, SOAK_TARGETS)


def soak(
    chain: LocalChain,
    loaded: LoadedConfig,
    looks: int,
    *,
    every: int,
    trade_every: int,
    look_s: int = 0,
    traced: bool = True,
    faults: Faults | None = None,
    on_mark: Callable[[ProcessFigures], object] = lambda mark: None,
) -> SoakReport:
    """Run `looks` cycles of one run with its service, at least `look_s` of the chain's time apart; the market moves every `trade_every`
    cycles, a mark is made every `every` unless a fault lasts.
    """
    marks: list[ProcessFigures] = []
    outcomes: Counter[str] = Counter()
    with running(chain, loaded, traced, faults) as (agent, service):
        rounds = agent.run(send=True, confirm=yes, every="1s", progress=service.on_stage)
        for number in range(1, looks + 1):
            if faults is not None and number % trade_every in (0, trade_every // PAUSED_PART):
                faults.end()  # else a locked store would refuse the owner
            if number % trade_every == 0:
                agent.context.kill_switch.pause("soaking", chain.now_s())
                chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * PRICES[number // trade_every % 2]})
            elif number % trade_every == trade_every // PAUSED_PART:
                agent.context.kill_switch.resume("soaked", chain.now_s())
            if faults is not None and number > 1:
                faults.before_look()
            outcome = next(rounds)
            service.on_cycle(outcome)
            metrics_text(service.recorder.report, service.recorder.health(), chain.now_s())
            outcomes["error" if isinstance(outcome, TrimtabError) else outcome.kind.value] += 1
            if look_s:
                chain.warp(look_s)
            if number % every == 0 and (faults is None or not faults.is_present):
                marks.append(mark(number, wiring.store_file(loaded), agent))
                on_mark(marks[-1])
        if faults is not None:
            faults.end()
        rounds.close()
    return SoakReport(tuple(marks), dict(outcomes))


@contextmanager
def running(chain: LocalChain, loaded: LoadedConfig, traced: bool, faults: Faults | None = None) -> Iterator[tuple[Agent, RunEventHandler]]:
    """Open an agent with the whole service except its port. Tracing the heap doubles the time."""
    clock = faults.clock if faults is not None else chain_clock(chain)
    transports = None if faults is None else [faults.endpoint]
    if traced:
        tracemalloc.start(1)
    try:
        with reopened_agent(chain, loaded, transports, clock) as agent, report_run(agent, clock, "1s") as service:  # type: ignore[arg-type]  # a clock that ticks by blocks
            yield agent, service
    finally:
        tracemalloc.stop()


def mark(looks: int, store: Path, agent: Agent) -> ProcessFigures:
    """Return the figures of the process after garbage collection."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    byte_count = sum(path.stat().st_size for path in store.parent.glob(store.name + "*") if path.is_file())
    return ProcessFigures(
        looks,
        tracemalloc.get_traced_memory()[0],
        resident,
        len(gc.get_objects()),
        byte_count,
        len(agent.context.store.steps.newest(1_000_000)),
    )
