"""User-defined signals: the input view, the returned target weights, and the validated answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

GRID = 1_000_000
"""Returned weights are rounded to millionths."""


@dataclass(frozen=True, slots=True)
class PriceBar:
    """Last price of an interval: chain time in Unix seconds, and price in numeraire per
    whole coin.
    """

    at_s: int
    close: float


@dataclass(frozen=True, slots=True)
class SignalView:
    """Input of a signal; equal views must give equal targets.

    `now_s` is chain time, `numeraire` a symbol. `prices` has, by symbol, one bar per `step` of the
    last `window`, oldest first, for every asset except the numeraire; intervals without a price are
    missing. `weights` are the current shares of all assets in the wallet, `free` the assets whose
    weights the signal may choose. `futures` has, by market, the current signed notional as a share
    of the target notional (account value times `futures.leverage`); empty without futures.
    `markets` has, by market, the asset with the same price, or "". `options` are the options of the
    config.
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
    """Result of a signal. `spot` are non-negative shares by asset with sum one; an asset that is
    not named gets zero. `futures` are signed shares of the target notional by market, whose
    absolute values sum to at most one; a market that is not named gets zero. None keeps the targets
    of the config.
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
    """A signal of the config: its entry point, timeout, options, and the futures markets that it
    may target.
    """

    name: str
    timeout_s: int
    options: tuple[tuple[str, str], ...] = ()
    markets: tuple[SignalMarket, ...] = ()


@dataclass(frozen=True, slots=True)
class SignalAnswer:
    """A signal's validated answer: millionths by token and by futures market (None: keep the
    targets of the config). `owner` is the strategy that uses the signal ("": the portfolio),
    `source` the distribution that provides it. `why` is the reason if there are no new targets,
    otherwise empty.
    """

    name: str
    owner: str
    spot_ppm: tuple[tuple[str, int], ...] | None = None
    futures_ppm: tuple[tuple[str, int], ...] | None = None
    source: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A request to a signal. `why` is the reason if it cannot be run, otherwise empty."""

    settings: SignalSettings
    owner: str
    view: SignalView
    tokens: tuple[tuple[str, str], ...]
    """Addresses of the assets that the signal may target, by symbol."""
    why: str = ""
