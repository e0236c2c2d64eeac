"""Portfolios of one folder whose stores are in one database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.localchain import LocalChain
from agent.model import Intent
from agent.signing.keys import TestAccountKey, load_key
from tests.support.fleets import add_portfolio
from tests.support.transactions import CHAIN_ID
from tests.support.workers import bring_to_present, journals, served_counts

ACCOUNTS = {"one": 4, "two": 5, "three": 6, "four": 7}
TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}


def folder_of(chain: LocalChain, tmp_path: Path, url: str, usd: Mapping[str, int]) -> Path:
    """The configs of four portfolios in one folder, whose stores are in one database."""
    folder = tmp_path / "clients"
    folder.mkdir()
    for name, account in ACCOUNTS.items():
        path = add_portfolio(chain, tmp_path, name, account, usd, {"store.url": url})
        path.rename(folder / path.name)
        (path.with_name("trimtab.store.secret")).rename(folder / f"{name}.store.secret")
    bring_to_present(chain)
    return folder


def counts_of_accounts(url: str) -> dict[int, int]:
    return served_counts(url, [wallet_address(account) for account in ACCOUNTS.values()])


def wallet_address(account: int) -> str:
    return load_key(TestAccountKey(account), CHAIN_ID, ask=None).address


def intents(folder: Path) -> Sequence[Sequence[Intent]]:
    return journals(folder, list(ACCOUNTS))
