"""What the store remembers of strategies, as SQLAlchemy models: what moved their books, their states, their unit values."""

from __future__ import annotations

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from agent.store.tables import SEQUENCE, Base


class SleeveBookingRow(Base):
    """One thing that happened to the books of strategies, as JSON; a transaction's goes again when its block does."""

    __tablename__ = "sleeve_bookings"
    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    source: Mapped[str] = mapped_column(String(120), unique=True)
    booking_json: Mapped[str] = mapped_column(Text)


class SleeveRow(Base):
    """What is remembered of one strategy beside its holdings, as JSON."""

    __tablename__ = "sleeves"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    state_json: Mapped[str] = mapped_column(Text)


class UnitValueRow(Base):
    """What a unit of a strategy was worth in one hour, and its health index, in 10^-12."""

    __tablename__ = "sleeve_units"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    unit: Mapped[str] = mapped_column(Text)
    health_index: Mapped[str] = mapped_column(Text)
