"""The ledger of a whole life on a real node: deposits, trades, liquidity, withdrawals, a swap by hand, a reorganisation; equal to
the chain to the wei after each.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.accounting import entries as book
from agent.accounting.export import format_utc
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.app.records.ledger import open_ledger_data
from agent.app.records.maintenance import reconcile
from agent.config.loaded import LoadedConfig
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Entry, EntryKind, ExternalTransferKind, Halt
from agent.units import HOUR_S, NATIVE
from tests.support import agents
from tests.support.agents import ROOMY, USD, fund, purse, trusted_config, yes
from tests.support.lp_on_chain import EVEN
from tests.support.on_chain.lp_actions import V3, config_with_targets, trade_both_ways
from tests.support.text import mentions

WIDE = ROOMY | {
    "limits.balance_jump": "off",
    "limits.daily_loss": "off",
    "chain.confirmations": 1,
    "tax": {"method": "fifo", "year_limit": "off"},
}


class WalletLife:
    """A wallet whose ledger is compared with the contracts themselves after everything that happens to it."""

    def __init__(self, chain: LocalChain, folder: Path, loaded: LoadedConfig) -> None:
        self.chain = chain
        self.folder = folder
        self.loaded = loaded

    def step(self, happens: Callable[[Agent], object] = lambda _: None, changes: dict[str, object] | None = None) -> tuple[Entry, ...]:
        """Lets something happen, looks twice, and compares."""
        if changes is not None:
            self.loaded = agents.agent_config(self.chain, self.folder, changes, EVEN)
        with agents.reopened_agent(self.chain, self.loaded) as agent:
            happens(agent)
            api.refresh_ledger(agent)
            self.require_equal(agent)
            return agent.context.store.ledger.entries()

    def require_equal(self, agent: Agent) -> None:
        """The sums of all postings are the balances, asked of the contracts; everything in it is final, balances, and has the time of
        its block.
        """
        chain = self.chain
        now = purse(self.chain)
        entries = agent.context.store.ledger.entries()
        assert agent.context.store.ledger.intents_without_entry() == ()
        assert [entry.id for entry in entries if book.unbalanced_tokens(entry)] == []
        sent = [entry for entry in entries if entry.tx_hash]
        blocks: list[Any] = [chain.transport.call("eth_getBlockByNumber", [hex(entry.block), False]) for entry in sent]
        assert [entry.chain_s for entry in sent] == [int(block["timestamp"], 16) for block in blocks]
        sums = book.account_balances(entries)
        assert {s: sums.get((book.WALLET, chain.tokens[s].address), 0) for s in EVEN} == {s: now.raw[s] for s in EVEN}
        assert sums.get((book.WALLET, NATIVE), 0) == now.native_wei
        ledger_chain_document = api.compare_with_chain(agent)
        assert ledger_chain_document["disagreement"] == ""
        assert {row["ledger_raw"] == row["chain_raw"] for row in ledger_chain_document["balances"]} == {True}
        assert api.check_books(self.loaded.path)["sound"]

    def paid_in(self, symbol: str, raw: int, kind: ExternalTransferKind | None = None) -> Callable[[Agent], object]:
        """Something comes (or goes), and its owner says what it was."""

        def happens(agent: Agent) -> None:
            self.chain.set_balance(symbol, self.chain.balance(symbol) + raw)
            api.list_transfers(agent)
            if kind is not None:
                agent.context.store.balances.classify(None, kind, self.chain.now_s())

        return happens


def trade(agent: Agent) -> None:
    assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


def liquidity(chain: LocalChain, **wishes: str) -> dict[str, object]:
    """A share of the portfolio in a pool, and a trigger that stays quiet."""
    return {key: value for key, value in config_with_targets(chain, V3, **wishes).items() if key != "portfolio.positions"}


def kinds(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.kind.value for entry in entries if entry.kind is not EntryKind.OPENING]


@pytest.fixture
def life(anvil_chain: LocalChain, tmp_path: Path) -> WalletLife:
    fund(anvil_chain, {"WETH": 6_000, "USDC": 4_000})
    trusted_config(anvil_chain, tmp_path, WIDE | liquidity(anvil_chain), EVEN)
    return WalletLife(anvil_chain, tmp_path, agents.agent_config(anvil_chain, tmp_path, WIDE, EVEN))


def test_the_ledger_is_the_chain_to_the_wei_through_a_whole_life(life: WalletLife) -> None:
    chain = life.chain
    assert kinds(life.step()) == []
    assert kinds(life.step(trade)) == ["gas", "trade"]
    assert kinds(life.step(life.paid_in("USDC", 3_000 * USD)))[-1] == "unexplained"
    assert kinds(life.step(lambda agent: agent.context.store.balances.classify(None, None, 1)))[-1] == "deposit"
    assert kinds(life.step(trade))[-2:] == ["gas", "trade"]
    hand = life.step(lambda agent: agent.swap("USDC", "WETH", "500", send=True, confirm=yes))
    assert [(entry.kind.value, entry.by_hand) for entry in hand[-2:]] == [("gas", True), ("trade", True)]

    provided = life.step(trade, WIDE | liquidity(chain))
    assert provided[-1].kind is EntryKind.PROVIDE
    account = next(posting.account for posting in provided[-1].postings if posting.account.startswith(book.LP))
    principal = {token: raw for (name, token), raw in book.account_balances(provided).items() if name == account}
    assert all(raw > 0 for raw in principal.values())
    trade_both_ways(chain, V3, 1)
    chain.refresh_feeds(("WETH", "USDC"))
    out = life.step(trade, WIDE | liquidity(chain, share="0%"))
    entry = next(entry for entry in out if entry.kind is EntryKind.WITHDRAW)
    earned = {posting.token: -posting.raw for posting in entry.postings if posting.account == book.LP_INCOME}
    assert set(earned) == set(principal)
    assert all(raw > 0 for raw in earned.values()), "fees of the strangers' trades are income"
    assert {token: raw for (name, token), raw in book.account_balances(out).items() if name == account and raw} == {}

    assert kinds(life.step(life.paid_in("WETH", -(10**17), ExternalTransferKind.WITHDRAWAL), WIDE))[-1] == "withdrawal"
    assert kinds(life.step(life.paid_in("WETH", -(10**16), ExternalTransferKind.LOSS)))[-1] == "loss"
    assert kinds(life.step(life.paid_in("USDC", 7 * USD, ExternalTransferKind.GIFT)))[-1] == "gift"


def test_reorganised_entry__leaves_the_ledger_and_comes_back(life: WalletLife) -> None:
    chain = life.chain
    before = life.step()
    done = life.step(trade)
    assert kinds(done) == ["gas", "trade"]
    late_s, depth = chain.now_s(), chain.w3.eth.block_number - done[-1].block + 1  # a slow machine makes blocks of its own
    chain.transport.call("anvil_reorg", [depth, []])
    chain.transport.call("evm_setNextBlockTimestamp", [late_s + 5])
    with agents.reopened_agent(chain, life.loaded) as agent:
        reconcile(agent)
        assert "trade" not in kinds(agent.context.store.ledger.entries())
        step = agent.step_input()
        assert step.history.ledger_mismatch == ""
    back = life.step(lambda agent: agent.rebalance(send=True, confirm=yes))
    assert kinds(back)[-1] == "trade"
    assert len(kinds(back)) == 2
    assert [entry for entry in back if entry.kind is EntryKind.OPENING] == list(before)


def test_value_profit_and_lots__are_of_the_newest_cycle(life: WalletLife) -> None:
    """Valuations are recorded once an hour; a price moves between two of them, and no gain of gas money is shown."""
    chain = life.chain
    chain.warp(HOUR_S - chain.now_s() % HOUR_S)  # all of this within one hour of the clock
    life.step(trade)
    chain.warp(60)
    chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(101, 100)})
    with agents.reopened_agent(chain, life.loaded) as agent:
        recorded = agent.context.store.valuations.between()[-1]
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert agent.context.store.valuations.between()[-1] == recorded
        now = status_document(agent.status())
    pnl_document = api.pnl(life.loaded.path)
    lots = api.tax_lots(life.loaded.path)
    assert pnl_document["until"] == lots["valued"] == pnl_document["periods"][0]["to"] > format_utc(recorded.chain_s)
    present, before = api.history(life.loaded.path, 2)["values"]
    assert (present["value"], before["block"]) == (pnl_document["value"], recorded.block), "charts end at the value above them"
    assert present["weights_bps"] == {holding["symbol"]: holding["weight_bps"] for holding in now["holdings"]}
    assert float(pnl_document["value"]) == pytest.approx(float(now["total_value"]), abs=1e-5)
    assert sum(float(asset["value"] or 0) for asset in lots["assets"]) == pytest.approx(float(pnl_document["value"]), abs=1e-5)
    assert sum(float(asset["unrealised"] or 0) for asset in lots["assets"]) == pytest.approx(float(pnl_document["unrealised"]), abs=1e-5)
    assert Fraction(pnl_document["unrealised"]) < 100, "the gain of the gas money is no gain of the portfolio"
    assert lots["gas_money"] is not None
    assert Fraction(lots["gas_money"]["unrealised"] or 0) > 100


def test_profit_and_loss_and_the_exports_say_what_happened(life: WalletLife) -> None:
    chain = life.chain
    life.step()
    life.step(trade)
    chain.warp(3_700)
    life.step(life.paid_in("USDC", 2_000 * USD, ExternalTransferKind.DEPOSIT))
    life.step(lambda agent: agent.swap("USDC", "WETH", "400", send=True, confirm=yes))
    pnl_document = api.pnl(life.loaded.path)
    (all_of_it,) = pnl_document["periods"]
    assert Fraction(all_of_it["deposits"]) == 2_000
    assert Fraction(all_of_it["withdrawals"]) == 0
    parts = [Fraction(all_of_it[name]) for name in ("start_value", "deposits", "from_gas_money", "profit")]
    assert sum(parts) + Fraction(all_of_it["manual_swaps"]["effect"]) == pytest.approx(Fraction(all_of_it["end_value"]), abs=1e-5)
    assert (all_of_it["rebalances"], all_of_it["manual_swaps"]["swaps"]) == (1, 1)
    assert sum(map(Fraction, pnl_document["tax"]["years"].values())) == Fraction(all_of_it["realised"]) != 0
    costs = {name: Fraction(text) for name, text in all_of_it["costs"].items()}
    assert costs["fees"] > 0
    assert costs["gas"] > 0
    assert costs["total"] == pytest.approx(float(-Fraction(all_of_it["profit"])), rel=1e-6)
    assert Fraction(all_of_it["against_holding"]) == Fraction(all_of_it["profit"]) - Fraction(all_of_it["hold_profit"])

    for kind in ("rotki", "csv", "parquet"):
        api.export(life.loaded.path, kind, life.folder / kind)
    trades = list(csv.DictReader((life.folder / "rotki/rotki_generic_trades.csv").open()))
    with open_ledger_data(life.loaded.path) as books:
        ids = [entry.tx_hash for entry in books.entries if entry.kind is EntryKind.TRADE]
        net: dict[str, Fraction] = {}
        for entry in books.entries:
            for posting in entry.postings:
                if entry.kind is EntryKind.TRADE and posting.account == book.WALLET and posting.token != NATIVE:
                    net[posting.token] = net.get(posting.token, Fraction(0)) + Fraction(
                        posting.raw, 10 ** books.token_names.decimals(posting.token)
                    )
    assert [row["Description"].split()[-1] for row in trades] == ids
    for token, amount in net.items():
        name = f"eip155:{chain.chain_id}/erc20:{token}"
        received = sum(Fraction(row["Receive Amount"]) for row in trades if row["Receive Currency"] == name)
        spent = sum(Fraction(row["Spend Amount"]) for row in trades if row["Spend Currency"] == name)
        assert received - spent == amount
    assert all(row["Fee Currency"] == "ETH" and Fraction(row["Fee"]) > 0 for row in trades)


def test_entries_that_were_tampered_with_are_found_and_rebuilt(life: WalletLife) -> None:
    life.step()
    life.step(trade)
    with agents.reopened_agent(life.chain, life.loaded) as agent, agent.context.store.db.write("tamper") as db:
        for column in ("wallet_moves_json", "entry_json"):
            db.exec_driver_sql(f"UPDATE entries SET {column} = replace({column}, '\"-', '\"-1')")
    ledger_check_document = api.check_books(life.loaded.path)
    assert not ledger_check_document["sound"]
    assert len(ledger_check_document["differing"]) == 2
    assert any("entries" in what for what in ledger_check_document["misstated"]), "the sums that looks go by are proved from the entries"
    assert ledger_check_document["unbalanced"]
    rebuilt = api.check_books(life.loaded.path, rebuild=True)
    assert rebuilt["rebuilt"]
    assert rebuilt["sound"]
    assert {**rebuilt, "rebuilt": False, "differing": [], "misstated": []} == api.check_books(life.loaded.path)
    life.step()


def test_ledger_that_contradicts_the_chain__halts_until_rebuilt(life: WalletLife) -> None:
    life.step()
    life.step(trade)
    with agents.reopened_agent(life.chain, life.loaded) as agent:
        store = agent.context.store
        with store.db.write("tamper") as db:
            db.exec_driver_sql("UPDATE running SET raw = raw || '1'")
        decided = agent.status().decision_result.decision
        assert isinstance(decided, Halt)
        assert mentions(decided.reason, "ledger", "chain")
        assert "WETH" in decided.reason
        assert "trimtab books check" in decided.reason
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HALT
    assert not api.check_books(life.loaded.path)["sound"]
    assert api.check_books(life.loaded.path, rebuild=True)["rebuilt"]
    life.step()


def test_new_books_open_at_the_balances_of_the_chain(life: WalletLife) -> None:
    life.step()
    life.step(trade)
    api.open_new_book(life.loaded.path, "going live")
    entries = life.step()
    assert kinds(entries) == []
    assert life.loaded.path.exists()
    assert kinds(life.step(life.paid_in("USDC", 5 * USD, ExternalTransferKind.DEPOSIT))) == ["deposit"]
