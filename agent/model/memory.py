"""The store's data at a step's block, which its input is assembled from."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.layers import LayerPart, T, part_of
from agent.model.ledger import CashMemory, ExpectedBalances, LedgerBalance
from agent.model.market import PricePoint, ScreenedToken
from agent.model.weights import Allocation


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The store's data at a step's block, except the budgets in its history. `choices` are the
    newest allocations of the parts that divide the wallet, by owner; `untradable` are tokens to
    quarantine. `layers` are what the layers read: states join the step's history, the rest is for
    their own use.
    """

    prices: tuple[PricePoint, ...]
    allocation: Allocation | None
    balances: ExpectedBalances
    ledger: tuple[LedgerBalance, ...]
    choices: tuple[tuple[str, Allocation], ...] = ()
    untradable: tuple[ScreenedToken, ...] = ()
    cash: CashMemory | None = None
    layers: tuple[LayerPart, ...] = ()

    def layer(self, kind: type[T]) -> T:
        """Return what a layer read."""
        return part_of(self.layers, kind)
