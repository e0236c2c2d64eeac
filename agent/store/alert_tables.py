"""What the store remembers of alerts, as SQLAlchemy models."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from agent.store.tables import SEQUENCE, Base


class AlertRow(Base):
    """One key and what was told of it, times in Unix seconds."""

    __tablename__ = "alerts"
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    text: Mapped[str] = mapped_column(Text)
    raised_s: Mapped[int] = mapped_column(BigInteger)
    since_s: Mapped[int | None] = mapped_column(BigInteger)
    untold: Mapped[int] = mapped_column(Integer)
    told_s: Mapped[int | None] = mapped_column(BigInteger)


class LetterRow(Base):
    """An alert that is on its way to a target."""

    __tablename__ = "alert_letters"
    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    target: Mapped[str] = mapped_column(String(40), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    text: Mapped[str] = mapped_column(Text)
    made_s: Mapped[int] = mapped_column(BigInteger)


class AlertTargetRow(Base):
    """How a target did."""

    __tablename__ = "alert_targets"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    delivered_s: Mapped[int | None] = mapped_column(BigInteger)
    failed_s: Mapped[int | None] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(Integer)
    why: Mapped[str] = mapped_column(Text)
    lost: Mapped[int] = mapped_column(Integer)
