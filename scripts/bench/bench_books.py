"""Benchmark of a ledger with many entries: the reads of a cycle, of `pnl`, of `history`, and of
`status`.

Builds a store of `--entries` settled trades (WETH for USDC and back, ten to a step) with a
valuation per hour, in a temporary folder or in `--keep`, where a second run reuses it. Times each
read on a store that was just opened, and prints JSON with wall and processor seconds: other
programs on the machine affect processor time less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sqlalchemy import insert

from agent import app as api
from agent import codec, wiring
from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.app.start.setup import NewConfig, write_new_config
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.execution.step_memory import read_memory
from agent.layers.inputs import assemble_input
from agent.model import (
    Entry,
    Holding,
    IntentKind,
    IntentState,
    Receipt,
    StepInput,
    Transfer,
    ValuedHolding,
)
from agent.store import Store
from agent.store.accounts import ledger, ledger_sums
from agent.store.database.rows import compress_text
from agent.store.tables import BudgetUseRow, IntentRow, StepRow, TransitionRow, ValuationRow
from agent.units import NATIVE
from agent.wiring.context import TaxRunCache
from tests.support import ledgers
from tests.support.transactions import OTHER, WALLET, grant, tx

WETH = ledgers.LEDGER_WETH
USDC = ledgers.LEDGER_USDC
COIN = 10**18
DOLLAR = 10**6
HOUR_S = 3_600
GAS = 100_000
GAS_PRICE_WEI = 10**9
FEE_PIPS = 3_000
FIRST_BLOCK = 1_001
TRADES_PER_STEP = 10
BATCH_SIZE = 5_000
RPC = [("RPC_A", "one"), ("RPC_B", "two")]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument(
        "--keep",
        type=Path,
        default=None,
        help="folder to build the store in; an existing store is used",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary_folder:
        loaded = loaded_config(options.keep or Path(temporary_folder))
        with wiring.open_store_offline(loaded) as (store, _):
            if store.ledger.current_book() is None:
                build_store(store, options.entries, options.days)
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        print(
            json.dumps(
                {"entries": options.entries, "machine": machine, **read_times(loaded)}, indent=1
            )
        )


def read_times(loaded: LoadedConfig) -> dict[str, Any]:
    """Return the seconds of each read."""
    with wiring.open_store_offline(loaded) as (store, _):
        step = _final_step(store)
    at_s = step.snapshot.head.timestamp_s
    at_block = step.snapshot.head.number

    def time_on_fresh_store(read: Callable[[Store], object]) -> dict[str, float]:
        with wiring.open_store_offline(loaded) as (store, _):
            return timed_call(lambda: read(store))

    def status(store: Store, *, with_tax: bool) -> StepInput:
        tax_cache = TaxRunCache(loaded, step.portfolio)
        step_with_history = replace(step, history=store.budgets.history(at_s))
        return assemble_input(
            step_with_history,
            read_memory(
                step_with_history,
                store,
                layer_readers=(tax_cache.reader(store),) if with_tax else (),
            ),
        )

    reads_of_cycle: dict[str, Callable[[Store], object]] = {
        "stands": lambda store: store.ledger.balances(at_block),
        "history": lambda store: store.budgets.history(at_s),
        "books": lambda store: store.balances.expected(),
        "unbooked": lambda store: store.journal.unbooked_intents(),
        "unentered": lambda store: store.ledger.intents_without_entry(),
        "expected_nonce": lambda store: store.journal.expected_nonce(),
        "open_intents": lambda store: store.journal.open_intents(),
        "prune": lambda store: store.steps.prune_later(1_000),
        "ledger_mark": lambda store: store.ledger.version(),
    }
    return {
        "look": {name: time_on_fresh_store(read) for name, read in reads_of_cycle.items()},
        "status": time_on_fresh_store(lambda store: status(store, with_tax=False)),
        "status_with_year_limit": time_on_fresh_store(lambda store: status(store, with_tax=True)),
        "ledger": time_on_fresh_store(lambda store: store.ledger.entries()),
        "pnl_all": timed_call(lambda: api.pnl(loaded.path)),
        "pnl_month": timed_call(lambda: api.pnl(loaded.path, "month")),
        "history": timed_call(lambda: api.history(loaded.path)),
    }


def timed_call(call: Callable[[], object]) -> dict[str, float]:
    """Return the wall and processor seconds of a call."""
    wall_began_s = perf_counter()
    processor_began_s = process_time()
    call()
    return {
        "wall_s": round(perf_counter() - wall_began_s, 4),
        "cpu_s": round(process_time() - processor_began_s, 4),
    }


def loaded_config(folder: Path) -> LoadedConfig:
    """Return a config with a yearly gain limit; write it if it does not exist."""
    path = folder / "trimtab.toml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate"))
        path.write_text(path.read_text().replace('year_limit = "off"', 'year_limit = "100000000"'))
    return load_config(path)


@dataclass(frozen=True, slots=True)
class TradeHistory:
    """Alternating sales and purchases of WETH for USDC by a wallet, one each block from `first_block` on,
    over so many days from `start_s` on.
    """

    wallet: str
    weth: str
    usdc: str
    first_block: int
    start_s: int
    trade_count: int
    days: int

    def add_to(self, store: Store, step: StepInput) -> None:
        """Write trades, final and booked, and a valuation per hour, in the rows that the store itself
        writes. Each step was decided on the input of `step`.
        """
        book = store.ledger.current_book()
        if book is None:
            raise RuntimeError("no book is open")
        compressed_step = compress_text(codec.dumps(step))
        compressed_grant = compress_text(codec.dumps(grant()))
        for batch_start in range(0, self.trade_count, BATCH_SIZE):
            numbers = range(batch_start, min(self.trade_count, batch_start + BATCH_SIZE))
            with store.db.write("build") as session:
                step_numbers = sorted({number // TRADES_PER_STEP for number in numbers})
                session.execute(
                    insert(StepRow),
                    [
                        {
                            "id": f"s{step_number}",
                            "now_s": self.start_s + step_number,
                            "input_z": compressed_step,
                            "outcome": "done",
                        }
                        for step_number in step_numbers
                    ],
                )
                session.execute(
                    insert(IntentRow),
                    [
                        {**self._intent_row(number), "grant_z": compressed_grant}
                        for number in numbers
                    ],
                )
                session.execute(
                    insert(TransitionRow), [_transition_row(number) for number in numbers]
                )
                session.execute(
                    insert(BudgetUseRow),
                    [_budget_row(number, self.time_s(number)) for number in numbers],
                )
                for number in numbers:
                    ledger.add_entry(session, book, number + 1, self._entry(number))
        blocks_an_hour = self.trade_count // (self.days * 24) or 1
        with store.db.write("build") as session:
            valuation_rows = [
                self._valuation_row(book.number, hour, self.first_block + hour * blocks_an_hour)
                for hour in range(1, self.days * 24)
            ]
            session.execute(insert(ValuationRow), valuation_rows)
            ledger_sums.advance_settled_seq(session)

    def time_s(self, number: int) -> int:
        """Return the time of a trade."""
        return self.start_s + number * (self.days * 86_400 // self.trade_count)

    def token_changes(self, number: int) -> dict[str, int]:
        """Return what a trade changes."""
        price_raw = int(COIN // 100 * _price(number))
        return (
            {self.weth: -COIN // 100, self.usdc: price_raw}
            if number % 2 == 0
            else {self.weth: COIN // 100, self.usdc: -price_raw}
        )

    def _intent_row(self, number: int) -> dict[str, object]:
        transfers = [
            Transfer(token, *((self.wallet, OTHER) if raw < 0 else (OTHER, self.wallet)), abs(raw))
            for token, raw in self.token_changes(number).items()
        ]
        receipt = Receipt(
            _hash(number),
            1,
            self.first_block + number,
            _hash(number),
            GAS,
            GAS_PRICE_WEI,
            tuple(transfers),
        )
        return {
            "id": f"i{number}",
            "step_id": f"s{number // TRADES_PER_STEP}",
            "kind": IntentKind.SWAP.value,
            "state": IntentState.FINAL.value,
            "nonce": number,
            "tx_json": codec.dumps(tx(number)),
            "note": "swap",
            "created_s": number,
            "deadline_s": None,
            "tx_hash": _hash(number),
            "receipt_json": codec.dumps(receipt),
            "replaces": None,
        }

    def _entry(self, number: int) -> Entry:
        prices = EntryPrices({self.weth: _price(number), self.usdc: Fraction(1)}, self.weth)
        token_changes = self.token_changes(number)
        fee_by_token = {
            token: -raw * FEE_PIPS // 10**6 for token, raw in token_changes.items() if raw < 0
        }
        transaction = SettledTransaction(
            f"i{number}",
            self.first_block + number,
            self.time_s(number),
            _hash(number),
            "swap",
            token_changes,
            GAS * GAS_PRICE_WEI,
        )
        return entries.trade_entry(transaction, prices, {*token_changes, NATIVE}, fee_by_token)

    def _valuation_row(self, book_number: int, hour: int, block: int) -> dict[str, object]:
        price = _price(hour)
        holdings = [
            ValuedHolding(self.weth, 10 * COIN, 0, price, 5_000),
            ValuedHolding(self.usdc, 20_000 * DOLLAR, 0, Fraction(1), 5_000),
        ]
        value = 10 * COIN * price + 20_000 * DOLLAR
        return {
            "book_number": book_number,
            "block_number": block,
            "chain_s": self.start_s + hour * HOUR_S,
            "value": str(value),
            "holdings_z": compress_text(codec.dumps(holdings)),
        }


def build_store(store: Store, trade_count: int, days: int) -> None:
    """Fill an empty store with alternating sales and purchases of WETH."""
    first_step = ledgers.at()
    store.journal.adopt_nonce(0, 1)
    store.steps.begin("first", 1, codec.dumps(first_step))
    settlement.record_balance_changes(store.balances, first_step.snapshot, lambda: first_step)
    update_ledger(store, first_step)
    start_s = first_step.snapshot.head.timestamp_s
    TradeHistory(
        WALLET, WETH.address, USDC.address, FIRST_BLOCK, start_s, trade_count, days
    ).add_to(store, first_step)
    last_step = _final_step(store)
    settlement.record_balance_changes(store.balances, last_step.snapshot, lambda: last_step)


def _final_step(store: Store) -> StepInput:
    """Return a step input long after the last trade, with the ledger's balances."""
    step = ledgers.at(FIRST_BLOCK + 10_000_000, later_s=400 * 86_400)
    balances = {
        balance.token: balance.raw for balance in store.ledger.balances(step.snapshot.head.number)
    }
    holdings = tuple(Holding(token, balances[token]) for token in (WETH.address, USDC.address))
    return replace(
        step, snapshot=replace(step.snapshot, holdings=holdings, native_wei=balances[NATIVE])
    )


def _price(number: int) -> Fraction:
    """Return a price in numeraire base units per wei, which moves between 1,500 and 2,500 dollars."""
    return Fraction((1_500 + abs(number * 7 % 2_000 - 1_000)) * DOLLAR, COIN)


def _hash(number: int) -> str:
    return f"0x{number:064x}"


def _transition_row(number: int) -> dict[str, object]:
    return {
        "intent_id": f"i{number}",
        "before": "mined",
        "after": "final",
        "at_s": number,
        "tx_hash": _hash(number),
        "note": "",
    }


def _budget_row(number: int, at_s: int) -> dict[str, object]:
    return {
        "intent_id": f"i{number}",
        "kind": "swap",
        "succeeded": True,
        "chain_s": at_s,
        "turnover": str(10 * DOLLAR),
        "loss": str(Fraction(number % 7 * DOLLAR, 3)),
        "gas_wei": str(GAS * GAS_PRICE_WEI),
        "outflow": None,
    }


if __name__ == "__main__":
    main()
