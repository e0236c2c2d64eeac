"""The call budgets of operators: of this process, or of all workers at a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chain.providers.call_budgets import CallBudget, LocalCallBudget

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from agent.config.tables.chain import RpcTable


class CallBudgets:
    """One budget for each operator and rate. With an engine, that of a database of PostgreSQL, all
    processes share it.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine
        self._budget_by_operator: dict[tuple[str, int], CallBudget] = {}

    def budget(self, rpc_table: RpcTable) -> CallBudget | None:
        """Return the budget of an endpoint's operator; None without a limit."""
        rate = rpc_table.calls_per_second
        if rate is None:
            return None
        key = (rpc_table.operator, rate)
        if key not in self._budget_by_operator:
            self._budget_by_operator[key] = self._new_budget(rpc_table.operator, rate)
        return self._budget_by_operator[key]

    def _new_budget(self, operator: str, rate: int) -> CallBudget:
        if self._engine is None:
            return LocalCallBudget(rate)
        from agent.store.postgresql.call_budgets import (  # loaded only for PostgreSQL
            SharedCallBudget,
        )

        return SharedCallBudget(self._engine, operator, rate)
