"""Health of the strategies in a simulation: each change, and the final state."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.strategies import StrategyBooks


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """A strategy's health from a point in time: "active" or "paused", the reason, and its Sharpe
    ratio in thousandths (None if not known yet).
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
        """Add the states after a step; None without strategies."""
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
        """Newest state of each strategy."""
        return tuple(self._newest.values())
