"""A year on a real node: recorded returns, deposits, withdrawals, edits, a stop loss, a new process each month; books equal the chain."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.accounting import entries
from agent.app.agent import Agent
from agent.app.money.transfers import WithdrawalRequest, invest, withdraw
from agent.app.settings.editing import TextEdit, edit
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.chain import FEED_DECIMALS
from agent.units import NATIVE
from tests.support.agents import ROOMY, fund, purse, reopened_agent, trusted_config, yes
from tests.support.constants import HOME
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
        spent = self.native_wei - native_wei
        self.native_wei = native_wei
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


OWNERS = {
    "03": lambda life, agent: life.deposit(agent, "USDC", 5_000),
    "07": lambda life, agent: life.withdrawal(agent, 6_000),
    "09": lambda life, agent: life.deposit(agent, "WETH", 1),
    "11": lambda life, agent: life.withdrawal(agent, 9_000),
}
"""What the owner does in the first week of a month."""
EDITS = {
    "05": ConfigChanges(key_settings=(("portfolio.assets.2.stop_loss", '"18"'),)),
    "08": ConfigChanges(targets=(("WETH", "45%"), ("WBTC", "25%"))),
}
"""What he changes before a month begins; LINK stands at 23 then, and falls with all others soon."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("apart", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_year_of_recorded_returns__ends_with_the_chain_s_books(anvil_chain: LocalChain, tmp_path: Path, apart: int) -> None:
    """The agent looks every so many weeks."""
    with year(anvil_chain, tmp_path) as life:
        months: dict[str, list[dict[str, Fraction]]] = {}
        for date, prices in weeks()[2::apart]:
            months.setdefault(date[5:7], []).append(prices)
        for month, moves in months.items():
            if month in EDITS:
                life.edited(EDITS[month])
            with life.process() as agent:
                for number, prices in enumerate(moves):
                    life.looked(agent, prices, apart * WEEK_S)
                    if number == 0 and month in OWNERS:
                        OWNERS[month](life, agent)
                        life.require_equal(agent)
        require_all_of_it(life)


def require_all_of_it(life: Year) -> None:
    """It traded, the stop sold once and stayed out, and the books' return is the observer's."""
    with life.process() as agent:
        api.refresh_ledger(agent)
        life.linked(life.value())
        stages = {row["subject"]: row["stage"] for row in api.standing_orders(agent)["orders"]}
    assert life.trades >= 6
    assert len(life.fired) == 1
    assert stages == {"LINK": "done"}
    assert life.chain.balance("LINK") * 20 < 20 * 10**18, "what the stop sold stays out"
    assert api.check_books(life.loaded.path)["sound"]
    (whole,) = api.pnl(life.loaded.path, "all")["periods"]
    assert whole["twr_bps"] == pytest.approx(float((life.growth - 1) * 10_000), abs=0.01)
    assert Fraction(whole["withdrawals"]) == 15_000
    assert Fraction(whole["end_value"]) == pytest.approx(float(life.value()), abs=1e-4)
