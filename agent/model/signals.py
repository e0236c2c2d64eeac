"""Signals of one's own: the view that a signal gets, the target weights that it returns, and its
validated answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

GRID = 1_000_000
"""Returned weights are rounded to millionths."""


@dataclass(frozen=True, slots=True)
class PriceBar:
    """Last price of an interval: chain time in Unix seconds, and numeraire per whole coin."""

    at_s: int
    close: float


@dataclass(frozen=True, slots=True)
class SignalView:
    """Input of a signal; equal views must give equal targets.

    `now_s` is chain time, `numeraire` a symbol. `prices` has by symbol one bar per `step` of the
    last `window`, oldest first, of every asset but the numeraire; intervals without a price are
    missing. `weights` are the shares of all assets in the wallet now, `free` the assets whose weights
    the signal may choose. `futures` are by market the
    signed notionals held now, as shares of the target notional (account value times
    `futures.leverage`); empty without futures. `markets` has by market the asset with the same
    price, or "". `options` are those of the config.
    """

    now_s: int
    numeraire: str
    prices: Mapping[str, tuple[PriceBar, ...]]
    weights: Mapping[str, float]
    futures: Mapping[str, float] = field(default_factory=dict)
    markets: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    free: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignalTargets:
    """Result of a signal. `spot` are shares by asset, none below zero, with sum one; an asset
    that is not named gets none. `futures` are signed shares of the target notional by market,
    whose absolute values sum to at most one; a market that is not named gets none. None leaves the
    targets of the config.
    """

    spot: Mapping[str, float] | None = None
    futures: Mapping[str, float] | None = None


Signal = Callable[[SignalView], SignalTargets]
"""A pure function, named by an entry point of the group `trimtab.signals`."""


@dataclass(frozen=True, slots=True)
class SignalMarket:
    """A futures market that a signal may target: its symbol, its name at the venue, and the asset
    with the same price ("": none).
    """

    symbol: str
    market: str
    asset: str


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """A signal of the config: its entry point, the longest time of an answer, its options, and the
    futures markets that it may target.
    """

    name: str
    timeout_s: int
    options: tuple[tuple[str, str], ...] = ()
    markets: tuple[SignalMarket, ...] = ()


@dataclass(frozen=True, slots=True)
class SignalAnswer:
    """A signal's answer on the grid: millionths by token and by futures market (None: the targets of
    the config stay). `owner` is the strategy that asked ("": the portfolio), `source` the
    distribution that has the signal. `why` is the reason that there are no new targets (empty:
    there are).
    """

    name: str
    owner: str
    spot_ppm: tuple[tuple[str, int], ...] | None = None
    futures_ppm: tuple[tuple[str, int], ...] | None = None
    source: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A question to a signal. `why` is the reason that it cannot be asked (empty: it can)."""

    settings: SignalSettings
    owner: str
    view: SignalView
    tokens: tuple[tuple[str, str], ...]
    """Addresses of the assets that it may target, by symbol."""
    why: str = ""
