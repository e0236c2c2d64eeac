"""Allocators of target weights: methods, limits, and the weights chosen last."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AllocationNeeds(Enum):
    """Data for choosing weights, besides the assets and their bounds."""

    NOTHING = "nothing"
    SUPPLIES = "supplies"
    VOLATILITIES = "volatilities"
    CORRELATIONS = "correlations"


class AllocationMethod(Enum):
    """Method by which the weights of the free assets are chosen, and the data that it needs.

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
    HRP = "hrp", AllocationNeeds.CORRELATIONS

    @property
    def needs_returns(self) -> bool:
        """True if the method uses returns."""
        return self.needs in (AllocationNeeds.VOLATILITIES, AllocationNeeds.CORRELATIONS)


PRICED_METHODS = tuple(one for one in AllocationMethod if one.needs is not AllocationNeeds.SUPPLIES)
"""Methods that prices alone decide: market caps are in no price file."""


class InitialWeights(Enum):
    """Targets before the first allocation: those of the config, or none, which trades nothing."""

    TARGETS = "targets"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class WeightLimit:
    """Least and greatest weight of one free asset, bps of the portfolio."""

    token: str
    low_bps: int
    high_bps: int


@dataclass(frozen=True, slots=True)
class TokenSupply:
    """Supply of a token, base units; `source` names its source, empty for the token's own
    contract.
    """

    token: str
    raw: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """An allocator and its bounds. `fixed` are tokens that always keep their target of the config.

    Weights are chosen every `every_s` from the returns of each `step_s` within `window_s`; each
    asset needs `min_returns`, and its newest price may be `max_age_s` old. If no choice is
    possible, the last one is valid for `keep_s`. A choice that moves no weight by more than
    `churn_bps` changes nothing. `supplies` are the owner's values, which override the chain's.
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


@dataclass(frozen=True, slots=True)
class Allocation:
    """Chosen weights: bps of the portfolio by token, which sum to 10,000. `basis` identifies the
    config they belong to.

    `from_s` and `until_s` are the first and last price used, `returns` their number per asset;
    `data` describes the sample and `why` the choice.
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

    def bps(self, token: str) -> int:
        """Return the weight of a token; 0 if it has none."""
        return dict(self.weights_bps).get(token, 0)
