"""Swaps that are settled."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from agent.model import Transfer
from tests.support.transactions import OTHER, bench

WETH, USDC, DAI = "0x" + "Aa" * 20, "0x" + "Bb" * 20, "0x" + "Cc" * 20
ROUTER = OTHER
PRICES = {WETH: Fraction(2000), USDC: Fraction(1)}


def settled_swap(folder: Path, *transfers: Transfer):
    submitter_bench = bench(folder)
    look = submitter_bench.chain.status_of

    def with_transfers(tx_hash: str):
        status = look(tx_hash)
        return replace(status, receipt=replace(status.receipt, transfers=transfers)) if status.receipt else status

    submitter_bench.chain.status_of = with_transfers
    return submitter_bench, submitter_bench.run()
