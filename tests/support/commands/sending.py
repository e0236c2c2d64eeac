"""Wallets of commands that send."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.tools import TRIMTAB, Desk

PASSWORD = "a-password-canary"


def shown_part(secret: str, text: str) -> str:
    """The first part of a secret of a dozen characters that a text has; "" without one."""
    parts = (secret[first : first + 12] for first in range(len(secret) - 11))
    return next((part for part in parts if part.lower() in text.lower()), "")


def nonce(desk: Desk) -> int:
    return int(desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "latest"), 16)


@contextmanager
def process_with_lock(desk: Desk) -> Iterator[int]:
    """Another process that acts for the same wallet and chain."""
    code = (
        "import sys, time; from pathlib import Path; from agent.store.files.locks import WalletLocks, wallet_lock\n"
        f"with wallet_lock(WalletLocks(Path({str(desk.config.parent / 'trimtab.db.lock')!r}), 31337, {desk.about['wallet']!r})):\n"
        " print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([TRIMTAB[0], "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()


WALLET_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""Published key of the first test account."""
