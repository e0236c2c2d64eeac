"""A worker that reaches the chain but no longer its database: another takes its wallets, and nothing is sent twice."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.support.cut_networks import DATABASE_PORT, new_database_host, separate_machine
from tests.support.fleets import add_portfolio, wallet_of
from tests.support.postgresql import Server
from tests.support.workers import bring_to_present, has_swapped, journals, served_counts, until, worker

ACCOUNTS = {"one": 4, "two": 5, "three": 6, "four": 7}
TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}
BACK_S = 15
"""Time for a worker to notice that it was replaced, once it reaches its database again."""


def folders(chain: LocalChain, tmp_path: Path, url: str, database_host: str) -> tuple[Path, Path]:
    """The configs of four portfolios as they reach the database here, and from a machine of its own."""
    near = tmp_path / "clients"
    far = tmp_path / "far"
    near.mkdir()
    for name, account in ACCOUNTS.items():
        path = add_portfolio(chain, tmp_path, name, account, TOO_MUCH_WETH, {"store.url": url})
        path.rename(near / path.name)
        path.with_name("trimtab.store.secret").rename(near / f"{name}.store.secret")
    shutil.copytree(near, far)
    far_url = url.replace("@/", f"@{database_host}:{DATABASE_PORT}/").partition("?")[0]
    for config in far.glob("*.toml"):
        config.write_text(config.read_text().replace(url, far_url))
    return near, far


@pytest.mark.slow
@pytest.mark.parametrize("written_at_cut", [1, 2, 4])
def test_worker_cut_off_from_its_database__sends_nothing(
    chain: LocalChain, tmp_path: Path, server: Server, url: str, written_at_cut: int
) -> None:
    database_host = new_database_host()
    near, far = folders(chain, tmp_path, url, database_host)
    wallets = {name: wallet_of(account, chain) for name, account in ACCOUNTS.items()}
    nonces = {name: chain.w3.eth.get_transaction_count(wallet) for name, wallet in wallets.items()}  # type: ignore[arg-type]
    chain_port = int(str(chain.url).rpartition(":")[2])

    def served() -> list[int]:
        """How many of the four each process serves."""
        return sorted(served_counts(url, list(wallets.values())).values())

    bring_to_present(chain)
    with (
        separate_machine(database_host, server.folder / ".s.PGSQL.5432", chain_port) as machine,
        worker(far, tmp_path / "first.log", prefix=machine.prefix) as first,
    ):
        until(lambda: sum(map(len, journals(near, list(ACCOUNTS)))) >= written_at_cut, 60)
        machine.cut()
        with worker(near, tmp_path / "second.log"):
            until(lambda: 4 in served(), 60)
            until(lambda: all(map(has_swapped, journals(near, list(ACCOUNTS)))), 60)
            machine.mend()
            time.sleep(BACK_S)
            until(lambda: served() == [2, 2], 60)
            assert first.poll() is None
    for name, intents in zip(ACCOUNTS, journals(near, list(ACCOUNTS)), strict=True):
        mined = [intent for intent in intents if intent.state is IntentState.FINAL]
        sent_count = chain.w3.eth.get_transaction_count(wallets[name]) - nonces[name]  # type: ignore[arg-type]
        assert sent_count == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name
