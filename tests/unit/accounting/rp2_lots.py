"""RP2 as a peer for tax lots, in a process of its own: importing it opens a log in the working folder and changes decimal's context.

Reads [[method, [[kind, units, price], …]], …] as JSON, one event a day from 2021 on, and writes for each the lots used by sales and
withdrawals: [day, day of the purchase or deposit, units, cost, gain].
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

from prezzemolo.avl_tree import AVLTree
from rp2.accounting_engine import AccountingEngine
from rp2.configuration import MAX_DATE, MIN_DATE, Configuration
from rp2.in_transaction import InTransaction
from rp2.input_data import InputData
from rp2.out_transaction import OutTransaction
from rp2.plugin.country.us import US
from rp2.rp2_decimal import ZERO, RP2Decimal
from rp2.tax_engine import compute_tax
from rp2.transaction_set import TransactionSet

CONFIG = "[general]\nassets = ETH\nexchanges = X\nholders = X\n[in_header]\nasset = 0\n[out_header]\nasset = 0\n[intra_header]\nasset = 0\n"
KINDS = {"buy": "BUY", "sell": "SELL", "deposit": "GIFT", "withdraw": "GIFT"}
START = datetime(2021, 1, 1, tzinfo=UTC)


def taken_lots(configuration: Configuration, method: str, events: list[tuple[str, int, int]]) -> list[tuple[int, int, str, str, str]]:
    kinds = {kind: TransactionSet(configuration, kind, "ETH", MIN_DATE, MAX_DATE) for kind in ("IN", "OUT", "INTRA")}
    for day, (kind, units, price) in enumerate(events):
        at = (START + timedelta(days=day)).isoformat()
        common = (configuration, at, "ETH", "X", "X", KINDS[kind], RP2Decimal(price), RP2Decimal(units))
        if kind in ("buy", "deposit"):
            kinds["IN"].add_entry(InTransaction(*common, row=day + 1))
        else:
            kinds["OUT"].add_entry(OutTransaction(*common, ZERO, row=day + 1))
    methods = AVLTree()
    methods.insert_node(MIN_DATE.year, import_module(f"rp2.plugin.accounting_method.{method}").AccountingMethod())
    computed_tax = compute_tax(configuration, AccountingEngine(methods), InputData("ETH", kinds["IN"], kinds["OUT"], kinds["INTRA"]))
    return [
        (
            gain_loss.taxable_event.row - 1,
            gain_loss.acquired_lot.row - 1,
            str(gain_loss.crypto_amount),
            str(gain_loss.fiat_cost_basis),
            str(gain_loss.fiat_gain),
        )
        for gain_loss in computed_tax.gain_loss_set
    ]


if __name__ == "__main__":
    Path("rp2.ini").write_text(CONFIG)
    json.dump([taken_lots(Configuration("rp2.ini", US()), *transaction) for transaction in json.load(sys.stdin)], sys.stdout)
