"""Health of the strategies of a simulation: each change, and the state at the end."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.strategies import StrategyBooks


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """A strategy's health from a time on: "active" or "paused", why, and its Sharpe ratio in
    thousandths (None: not known yet).
    """

    time_s: int
    name: str
    health: str
    reason: str
    sharpe_milli: int | None


class HealthLog:
    """Collects the health of strategies bar by bar."""

    def __init__(self) -> None:
        self.changes: list[HealthRecord] = []
        self._newest: dict[str, HealthRecord] = {}

    def add(self, time_s: int, books: StrategyBooks | None) -> None:
        """Take the states of a step; None without strategies."""
        for book in () if books is None else books.sleeves:
            state = book.state
            found = HealthRecord(
                time_s, book.name, state.health.value, state.reason, state.sharpe_milli
            )
            before = self._newest.get(book.name)
            if before is not None and before.health != found.health:
                self.changes.append(found)
            self._newest[book.name] = found

    @property
    def newest(self) -> tuple[HealthRecord, ...]:
        """The newest state of each strategy."""
        return tuple(self._newest.values())
