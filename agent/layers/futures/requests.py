"""The owner's requests to the futures layer."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import AccountAction, DelegateChange, LayerRequest


@dataclass(frozen=True, slots=True)
class MarginAccountRequest(LayerRequest):
    """Request to deposit or withdraw margin, or to change a delegate."""

    action: AccountAction

    @property
    def command(self) -> str:
        """See LayerRequest."""
        return "delegate" if isinstance(self.action, DelegateChange) else "margin"


@dataclass(frozen=True, slots=True)
class Deleverage(LayerRequest):
    """Request to reduce all futures positions by the same share, or only that of the market
    `symbol` (empty: all), until the leverage is at most `leverage_bps`. Without a leverage the
    positions are closed.
    """

    leverage_bps: int | None = None
    symbol: str = ""
    command = "deleverage"
    names_amount = False


@dataclass(frozen=True, slots=True)
class OpenHedge(LayerRequest):
    """Request to short `ratio_bps` of the amount by which `token` exceeds its target, instead of
    selling it.
    """

    token: str
    ratio_bps: int
    command = "hedge"


@dataclass(frozen=True, slots=True)
class CloseHedge(LayerRequest):
    """Request to close the hedge of a `token`."""

    token: str
    command = "hedge"
    names_amount = False
