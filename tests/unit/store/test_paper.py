"""PaperStore of agent/store/store.py: pins and prices from the live store, which stays as it is, and no books of the other kind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from agent.errors import ConfigError, OperatorNeeded
from agent.model import Holding, PaperWallet, PricePoint
from agent.store import open_store
from agent.store.files import backup
from agent.store.migrations.schema import REVISIONS
from agent.store.store import Store, rows_of_file
from tests.support import builders
from tests.support.stores import pins, unpin
from tests.support.text import raises_code

TOKEN = builders.address("token")
BEHIND = builders.address("behind")
HASH = "0x" + "ab" * 32


def opened_store(folder: Path, name: str, books: str) -> Store:
    return open_store(f"sqlite:///{folder}/{name}", 1, builders.OWNER, store_kind=books)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """The live store and the paper store of a folder."""
    live = opened_store(tmp_path, "trimtab.db", "live")
    paper = opened_store(tmp_path, "paper.db", "paper")
    yield live, paper
    live.close()
    paper.close()


@contextmanager
def live_rows(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection of another program to the live store, and commit what it did."""
    with closing(sqlite3.connect(folder / "trimtab.db")) as rows, rows:
        yield rows


def test_paper__trusts_what_the_live_store_trusts_at_its_start(books: tuple[Store, Store], tmp_path: Path) -> None:
    live, paper = books
    live.trust.pin({TOKEN: HASH}, 5, [(TOKEN, BEHIND, HASH)])
    paper.trust.pin({builders.address("stranger"): HASH}, 1)
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "trimtab.db"))
    assert (pins(paper), paper.trust.implementations()) == (pins(live), live.trust.implementations())
    unpin(live, TOKEN)
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "trimtab.db"))
    assert paper.trust.pins() == {}
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "missing.db"))
    assert paper.trust.implementations() == {}
    assert not (tmp_path / "missing.db").exists()


def test_paper__trusts_the_markets_of_the_live_store_alone(books: tuple[Store, Store], tmp_path: Path) -> None:
    live, paper = books
    live.trust.pin_markets("mainnet", {"ETH": 1})
    paper.trust.pin_markets("testnet", {"ETH": 4})
    paper.trust.record_account_mode(TOKEN, "unified", 5)
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "trimtab.db"))
    assert [paper.trust.market_numbers(network) for network in ("mainnet", "testnet")] == [{"ETH": 1}, {}]
    live.trust.pin_markets("mainnet", {"BTC": 0})
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "trimtab.db"))
    assert paper.trust.market_numbers("mainnet") == {"BTC": 0}
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "missing.db"))
    assert paper.trust.market_numbers("mainnet") == {}
    assert paper.trust.account_mode(TOKEN) == ("unified", 5)


@pytest.mark.parametrize(
    ("difference", "implementations"),
    [
        pytest.param("ALTER TABLE pins ADD COLUMN later TEXT", {TOKEN: (BEHIND, HASH)}, id="newer, with another column"),
        pytest.param("DROP TABLE implementations", {}, id="older, without a table"),
    ],
)
def test_live_store_of_another_version__is_read_and_not_changed(
    books: tuple[Store, Store], tmp_path: Path, difference: str, implementations: dict[str, tuple[str, str]]
) -> None:
    live, paper = books
    live.trust.pin({TOKEN: HASH}, 5, [(TOKEN, BEHIND, HASH)])
    live.close()
    with live_rows(tmp_path) as raw:
        raw.execute(difference)
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    live_bytes = (tmp_path / "trimtab.db").read_bytes()
    paper.paper.copy_pins(partial(rows_of_file, tmp_path / "trimtab.db"))
    assert (paper.trust.pins(), paper.trust.implementations()) == ({TOKEN: HASH}, implementations)
    assert (tmp_path / "trimtab.db").read_bytes() == live_bytes


def test_recorded_prices__are_taken_over_once(books: tuple[Store, Store], tmp_path: Path) -> None:
    _, paper = books
    with live_rows(tmp_path) as raw:
        raw.execute("INSERT INTO prices VALUES (?, ?, 1, 3600, '2/1', 'look')", (builders.OWNER, TOKEN))
    for _ in range(2):
        paper.paper.copy_prices(partial(rows_of_file, tmp_path / "trimtab.db"))
        assert paper.prices.has_cycle_prices(builders.OWNER, 3_600)


def test_imported_prices__follow_the_live_store(books: tuple[Store, Store], tmp_path: Path) -> None:
    live, paper = books

    def points(*hours: int, price: int = 2) -> list[PricePoint]:
        return [PricePoint(TOKEN, hour * 3_600, Fraction(price)) for hour in hours]

    def copied() -> list[tuple[int, int]]:
        paper.paper.copy_prices(partial(rows_of_file, tmp_path / "trimtab.db"))
        return [(point.at_s // 3_600, int(point.price)) for point in paper.prices.prices_between(builders.OWNER, 0, 10**6)]

    paper.prices.record(builders.OWNER, points(5, price=7))
    live.prices.record(builders.OWNER, points(1, 2, 5), "import")
    assert copied() == copied() == [(1, 2), (2, 2), (5, 7)]
    live.prices.forget(builders.OWNER, "import")
    live.prices.record(builders.OWNER, points(2, 3, price=9), "import")
    assert copied() == [(2, 9), (3, 9), (5, 7)], "a price that was taken back decides no weight on paper"


def test_a_store_is_live_or_paper_for_good(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    open_store(url, 31_337, builders.OWNER).close()
    with raises_code(OperatorNeeded, "paper", "live data"):
        open_store(url, 31_337, builders.OWNER, store_kind="paper")
    other = f"sqlite:///{tmp_path}/b.db"
    open_store(other, 31_337, builders.OWNER, store_kind="paper").close()
    with raises_code(OperatorNeeded, "paper", "paper data"):
        open_store(other, 31_337, builders.OWNER)
    again = open_store(other, 31_337, builders.OWNER, store_kind="paper")
    begun = PaperWallet((Holding(TOKEN, 5),), (), 10**18, 7, 1_000)
    again.paper.begin(begun)
    with raises_code(ConfigError, "paper_started"):
        again.paper.begin(begun)
    again.close()


def test_paper_backup__is_not_put_in_place_of_live_books(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/paper.db", 31_337, builders.OWNER, store_kind="paper").close()
    backup.backup(tmp_path / "paper.db", tmp_path / "backup.db")
    with raises_code(OperatorNeeded, "paper", "paper data"):
        backup.restore(tmp_path / "backup.db", tmp_path / "trimtab.db", builders.OWNER, "31337", REVISIONS)
    assert not (tmp_path / "trimtab.db").exists()
