"""Ledger entries of flows and trades."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.accounting import entries
from agent.model import Entry, ExternalTransfer, ExternalTransferKind
from tests.support.constants import DAY_S
from tests.support.ledgers import COUNTED, USDC, WETH, Wallet

FLOW = {True: ExternalTransferKind.DEPOSIT, False: ExternalTransferKind.WITHDRAWAL}


def flow(block: int, value: int) -> Entry:
    return entries.transfer_entry(ExternalTransfer(block, USDC, value, Fraction(value), 0, block, block * DAY_S, False, FLOW[value > 0]))


def trade_of(value: int) -> Entry:
    """The first purchase, with no postings of its own: valuations tell what it cost."""
    wallet = Wallet()
    return replace(entries.trade_entry(wallet.change({WETH: 10**18, USDC: -value}, 0), wallet.prices(), COUNTED, {}), postings=())
