"""Stored price history, at most one price per token and hour, and weights chosen by allocators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.model import Allocation, PricePoint
from agent.store.database.connection import Database
from agent.store.database.facts import read_facts, write_facts
from agent.store.database.rows import parse_whole
from agent.store.database.statements import first_row, insert_new_rows, insert_rows
from agent.store.tables import AllocationRow, PriceRow
from agent.units import DAY_S, HOUR_S

RETENTION_S = 800 * DAY_S
"""Retention of prices, longer than the longest window of 730 days
(agent/config/tables/weights.py).
"""
FETCHED_AT = "prices_fetched_s"
PRICE_FAULT = "price_fault"
"""Facts on the last attempt to read missing prices: its time, and the fault of an endpoint."""
AGENT_SOURCE = "look"
"""Source of prices that the agent's cycles record."""
IMPORT_SOURCE = "import"
"""Source of prices of files."""


@dataclass(frozen=True, slots=True)
class PriceSpan:
    """Prices of one token from one source: number of hours, first and last in chain seconds."""

    token: str
    source: str
    hour_count: int
    from_s: int
    until_s: int


@dataclass(frozen=True, slots=True)
class PriceStore:
    """Recorded prices by numeraire; each method is a transaction of its own, but `record_later`
    leaves it to Database.write_later.
    """

    db: Database

    def record(
        self, numeraire: str, points: Sequence[PricePoint], source: str = AGENT_SOURCE
    ) -> int:
        """Record prices, the first of each token and hour; return the number of new ones.

        Prices that are RETENTION_S older than the agent's newest are deleted or not recorded.
        """
        with self.db.write("record prices", keeps_cache=True) as db:
            return _insert_prices(db, numeraire, points, source)

    def kept_after_s(self, newest_s: int) -> int:
        """Return the time after which prices of a source are kept whose newest is of `newest_s`."""
        with self.db.read("read prices") as db:
            return _kept_after_s(db, newest_s)

    def record_later(self, numeraire: str, points: Sequence[PricePoint]) -> None:
        """Record the agent's own prices as `record` does."""
        write = partial(_insert_prices, numeraire=numeraire, points=points, source=AGENT_SOURCE)
        self.db.write_later("record prices", write, keeps_cache=True)

    def prices_between(
        self, numeraire: str, since_s: int, until_s: int, interval_s: int = HOUR_S
    ) -> tuple[PricePoint, ...]:
        """Return prices in that numeraire with since_s <= time <= until_s, oldest first: the last
        of each token in each `interval_s`.
        """
        bind_values = {
            "numeraire": numeraire,
            "hour": since_s // HOUR_S,
            "since": since_s,
            "until": until_s,
        }
        with self.db.read("read prices") as db:
            price_rows = db.execute(_select_prices_between(), bind_values).all()
        last_row_by_interval = {(row.token, row.at_s // interval_s): row for row in price_rows}
        return tuple(
            PricePoint(row.token, row.at_s, _parse_price(row.price))
            for row in sorted(last_row_by_interval.values(), key=lambda row: (row.at_s, row.token))
        )

    def has_cycle_prices(self, numeraire: str, at_s: int) -> bool:
        """True if a cycle has recorded prices in the hour of `at_s`."""
        with self.db.read("read prices") as db:
            bind_values = {"numeraire": numeraire, "hour": at_s // HOUR_S}
            return db.scalar(_select_agent_prices(), bind_values) is not None

    def last_fetch_s(self, windows_hash: str) -> tuple[int, int] | None:
        """Return the agent's time of the last complete attempt to read all missing prices of these
        windows from the chain, and the time until which later gaps were looked for; None without
        one, and after an endpoint failed.
        """
        with self.db.read("read the last fetch of prices") as db:
            facts = read_facts(db, FETCHED_AT, PRICE_FAULT)
        fetched_hash, _, times_text = facts.get(FETCHED_AT, "").partition(":")
        if fetched_hash != windows_hash or facts.get(PRICE_FAULT):
            return None
        whole_text, _, until_text = times_text.partition(":")
        return parse_whole(whole_text, FETCHED_AT), parse_whole(until_text, FETCHED_AT)

    def fetch_fault(self) -> str:
        """Return why an endpoint failed in the last attempt to read missing prices; empty if none
        did.
        """
        with self.db.read("read the last fetch of prices") as db:
            return read_facts(db, PRICE_FAULT).get(PRICE_FAULT, "")

    def mark_fetch(self, windows_hash: str, whole_s: int, until_s: int, fault: str = "") -> None:
        """Record when all missing prices of these windows were last looked for, until when later
        ones were, and why an endpoint failed (empty: none did).
        """
        fetched_at = f"{windows_hash}:{whole_s}:{until_s}"
        facts: dict[str, object] = {FETCHED_AT: fetched_at, PRICE_FAULT: fault}
        with self.db.write("write the last fetch of prices") as db:
            write_facts(db, facts)

    def spans(self, numeraire: str) -> tuple[PriceSpan, ...]:
        """Return the recorded spans by token and source."""
        query = select(
            PriceRow.token,
            PriceRow.source,
            func.count(),
            func.min(PriceRow.at_s),
            func.max(PriceRow.at_s),
        )
        with self.db.read("read prices") as db:
            span_rows = db.execute(
                query.where(PriceRow.numeraire == numeraire)
                .group_by(PriceRow.token, PriceRow.source)
                .order_by(PriceRow.token, PriceRow.source)
            )
            return tuple(PriceSpan(*row) for row in span_rows)

    def forget(self, numeraire: str, source: str) -> int:
        """Delete the prices of one source in that numeraire; return their number."""
        with self.db.write("remove prices") as db:
            conditions = PriceRow.numeraire == numeraire, PriceRow.source == source
            write_facts(db, {FETCHED_AT: ""})  # what is removed is missing again
            return db.execute(delete(PriceRow).where(*conditions)).rowcount


def _insert_prices(
    db: Connection, numeraire: str, points: Sequence[PricePoint], source: str
) -> int:
    newest_s = max((point.at_s for point in points), default=0)
    kept_after_s = newest_s - RETENTION_S
    if source != AGENT_SOURCE:
        kept_after_s = _kept_after_s(db, newest_s)
    price_rows = [
        {
            "numeraire": numeraire,
            "token": point.token,
            "hour": point.at_s // HOUR_S,
            "at_s": point.at_s,
            "price": str(point.price),
            "source": source,
        }
        for point in points
        if point.at_s > kept_after_s
    ]
    added_count = insert_new_rows(db, PriceRow, price_rows)
    db.execute(delete(PriceRow).where(PriceRow.hour < kept_after_s // HOUR_S))
    return added_count


def _kept_after_s(db: Connection, newest_s: int) -> int:
    """Return the time RETENTION_S before the agent's newest price, without one before `newest_s`."""
    newest_agent_price_query = select(func.max(PriceRow.at_s)).where(
        PriceRow.source == AGENT_SOURCE
    )
    return (db.scalar(newest_agent_price_query) or newest_s) - RETENTION_S


def _parse_price(price_text: str) -> Fraction:
    try:
        price = Fraction(price_text)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a price is damaged: {error}",
            "restore a backup, or trimtab prices forget",
            code=ErrorCode.DAMAGED,
        ) from None
    if price <= 0:
        raise OperatorNeeded(
            "store: a price is damaged: it is not above zero",
            "restore a backup, or trimtab prices forget",
            code=ErrorCode.DAMAGED,
        )
    return price


@cache
def _select_prices_between() -> Select[str, int, str]:
    hour_conditions = (
        PriceRow.numeraire == bindparam("numeraire"),
        PriceRow.hour >= bindparam("hour"),
    )
    time_conditions = PriceRow.at_s >= bindparam("since"), PriceRow.at_s <= bindparam("until")
    return (
        select(PriceRow.token, PriceRow.at_s, PriceRow.price)
        .where(*hour_conditions, *time_conditions)
        .order_by(PriceRow.at_s, PriceRow.token)
    )


@cache
def _select_agent_prices() -> Select[Any]:
    conditions = (
        PriceRow.numeraire == bindparam("numeraire"),
        PriceRow.hour == bindparam("hour"),
        PriceRow.source == AGENT_SOURCE,
    )
    return select(PriceRow.token).where(*conditions).limit(1)


@dataclass(frozen=True, slots=True)
class AllocationStore:
    """Chosen weights by owner: a strategy's name, or "" for the portfolio."""

    db: Database

    def record(self, allocation: Allocation, owner: str = "") -> None:
        """Record a choice; recording it twice changes nothing."""
        allocation_json = codec.dumps(allocation)

        def insert_if_new(db: Connection) -> None:
            newest_row = first_row(db, _select_newest_allocation(), AllocationRow, owner=owner)
            if newest_row is None or newest_row.allocation_json != allocation_json:
                row = {"owner": owner, "at_s": allocation.at_s, "allocation_json": allocation_json}
                insert_rows(db, AllocationRow, [row])

        self.db.write_later("record chosen weights", insert_if_new, keeps_cache=True)

    def newest(self, owner: str = "") -> Allocation | None:
        """Return the newest choice; None before the first. No cached answer depends on it."""
        with self.db.read("read chosen weights") as db:
            return _newest_allocation(db, owner)


@cache
def _select_newest_allocation() -> Select[Any]:
    return (
        select(AllocationRow)
        .where(AllocationRow.owner == bindparam("owner"))
        .order_by(AllocationRow.seq.desc())
        .limit(1)
    )


def _newest_allocation(db: Connection, owner: str) -> Allocation | None:
    row = first_row(db, _select_newest_allocation(), AllocationRow, owner=owner)
    return None if row is None else _decode_allocation(row)


def _decode_allocation(row: AllocationRow) -> Allocation:
    try:
        return codec.loads(Allocation, row.allocation_json)
    except ConfigError as error:
        raise OperatorNeeded(
            f"store: chosen weights are damaged: {error.message}", "restore a backup"
        ) from None
