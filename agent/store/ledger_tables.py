"""Tables of the double-entry ledger, as SQLAlchemy models; base units and values are text."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from agent.store.tables import SEQUENCE, Base


class BookRow(Base):
    """One set of books; the last row is the one that is kept. `kind` is live or paper."""

    __tablename__ = "books"
    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(20))
    opened_s: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str] = mapped_column(Text)


class BookOpeningRow(Base):
    """What a place held of a token when it came into a book. Intents and flows up to the two numbers are part of it."""

    __tablename__ = "book_openings"
    book: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    place: Mapped[str] = mapped_column(String(120), primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    raw: Mapped[str] = mapped_column(Text)
    value: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger)
    after_intent: Mapped[int] = mapped_column(BigInteger)
    after_flow: Mapped[int] = mapped_column(BigInteger)


class EntryRow(Base):
    """The journal entry of one final intent; gone again when a reorganisation takes its block. `wallet_json` is what it moved in
    the wallet, base units by token.
    """

    __tablename__ = "entries"
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id"), primary_key=True)
    book: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    intent_seq: Mapped[int] = mapped_column(BigInteger)
    wallet_json: Mapped[str] = mapped_column(Text)
    entry_json: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("entries_by_book", "book", "block_number"),)


class RunningRow(Base):
    """What the wallet holds of a token by its book, entries, flows and opening summed, base units; see store/running.py."""

    __tablename__ = "running"
    book: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    raw: Mapped[str] = mapped_column(Text)


class ValuationRow(Base):
    """What all was worth at one look, with holdings and prices as zlib-compressed JSON."""

    __tablename__ = "valuations"
    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    book: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[str] = mapped_column(Text)
    held_z: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (Index("valuations_by_time", "book", "chain_s"),)
