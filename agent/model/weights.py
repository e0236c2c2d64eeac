"""Allocators of target weights: methods, settings and chosen weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.model.signals import SignalSettings


class AllocationNeeds(Enum):
    """Data that a method needs in addition to the assets and their bounds."""

    NOTHING = "nothing"
    SUPPLIES = "supplies"
    VOLATILITIES = "volatilities"
    CORRELATIONS = "correlations"
    PRICES = "prices"


class AllocationMethod(Enum):
    """Method that chooses the weights of the free assets, and the data that it needs.

    A new method is a row here, and a function with a row in agent/weights/allocators.py.
    """

    needs: AllocationNeeds

    def __new__(
        cls, name: str, needs: AllocationNeeds = AllocationNeeds.NOTHING
    ) -> AllocationMethod:
        """Create a method by its name in config and stores."""
        method = object.__new__(cls)
        method._value_, method.needs = name, needs
        return method

    FIXED = "fixed"
    EQUAL = "equal"
    MARKET_CAP = "market_cap", AllocationNeeds.SUPPLIES
    INVERSE_VOLATILITY = "inverse_volatility", AllocationNeeds.VOLATILITIES
    MINIMUM_VARIANCE = "minimum_variance", AllocationNeeds.CORRELATIONS
    RISK_PARITY = "risk_parity", AllocationNeeds.CORRELATIONS
    SIGNAL = "signal", AllocationNeeds.PRICES
    HRP = "hrp", AllocationNeeds.CORRELATIONS

    @property
    def needs_returns(self) -> bool:
        """True if the method uses returns."""
        return self.needs in (AllocationNeeds.VOLATILITIES, AllocationNeeds.CORRELATIONS)

    @property
    def needs_window(self) -> bool:
        """True if the method uses the prices of a window."""
        return self.needs_returns or self.needs is AllocationNeeds.PRICES


PRICED_METHODS = tuple(
    method
    for method in AllocationMethod
    if method.needs not in (AllocationNeeds.SUPPLIES, AllocationNeeds.PRICES)
)
"""Methods of trimtab that need no data except prices."""


class InitialWeights(Enum):
    """Targets before the first allocation: those of the config, or none, so that nothing is
    traded.
    """

    TARGETS = "targets"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class WeightLimit:
    """Minimum and maximum weight of one free asset, in bps of the portfolio."""

    token: str
    low_bps: int
    high_bps: int


@dataclass(frozen=True, slots=True)
class TokenSupply:
    """Supply of a token in base units. `source` names its origin; empty for the token's
    contract.
    """

    token: str
    raw: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """Settings of an allocator. `fixed` are tokens that keep their target of the config.

    Weights are chosen every `every_s` from returns over `step_s` within the last `window_s`. Each
    asset needs `min_returns` returns and a price not older than `max_age_s`. If no choice is
    possible, the last allocation stays valid for `keep_s` after it was due. A new allocation that
    moves no weight by more than `churn_bps` is ignored. `supplies` are the owner's values, which
    override those of the chain. `signal` is the user-defined signal that chooses the weights.
    """

    method: AllocationMethod
    every_s: int
    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int
    keep_s: int
    churn_bps: int
    until_chosen: InitialWeights
    fixed: tuple[str, ...]
    limits: tuple[WeightLimit, ...]
    supplies: tuple[TokenSupply, ...] = ()
    signal: SignalSettings | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """Chosen weights in bps by token, with sum 10,000. `basis` is the hash of the settings.

    `from_s` and `until_s` are the times of the first and last price used, `returns` the number of
    returns per asset. `data` describes the sample, `why` the choice. `futures_bps` are signed shares
    of the target notional by market (empty: the config's targets).
    """

    at_s: int
    method: AllocationMethod
    weights_bps: tuple[tuple[str, int], ...]
    basis: str
    data: str
    why: str
    from_s: int | None = None
    until_s: int | None = None
    returns: int = 0
    futures_bps: tuple[tuple[str, int], ...] = ()

    def bps(self, token: str) -> int:
        """Return the weight of a token; 0 if it has none."""
        return dict(self.weights_bps).get(token, 0)
