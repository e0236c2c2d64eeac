"""Allocators of target weights: methods, settings and chosen weights. User-defined signals: the
input view, the returned target weights, and the validated answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from agent.units import BPS

WEIGHT_RESOLUTION = 1_000_000
"""Steps in one whole: the weights that a signal returns are rounded to millionths."""


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
    weights the signal may choose. `targets` are the target shares of all assets: for a signal
    those of the config, for a trigger those that apply at this step. `futures` has, by market, the
    current signed notional as a share of the target notional (account value times
    `futures.leverage`); empty without futures.
    `markets` has, by market, the asset with the same price, or "". `options` are the options of the
    config. The mappings are read-only.
    """

    now_s: int
    numeraire: str
    prices: Mapping[str, tuple[PriceBar, ...]]
    weights: Mapping[str, float]
    futures: Mapping[str, float] = field(default_factory=dict)
    markets: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prices", "weights", "futures", "markets", "options", "targets"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True, slots=True)
class SignalTargets:
    """Result of a signal. `spot` are non-negative shares by asset with sum one; an asset that is
    not named gets zero. `futures` are signed shares of the target notional by market, whose
    absolute values sum to at most one; a market that is not named gets zero. None keeps the targets
    of the config.
    """

    spot: Mapping[str, float] | None = None
    futures: Mapping[str, float] | None = None


Signal = Callable[[SignalView], SignalTargets | Mapping[str, float]]
"""A pure function, named by an entry point of the group `trimtab.signals` or in a file beside the
config. A mapping is of spot weights; what they leave of one is the numeraire's."""
TriggerFunction = Callable[[SignalView], bool]
"""A pure function that answers whether a rebalance is due."""


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
    """A signal of the config: its name, which is that of its entry point, timeout, options, and the
    futures markets that it may target. `file`, FILE.py:FUNCTION beside the config with the hash
    `sha256`, takes the place of the entry point.
    """

    name: str
    timeout_s: int
    options: tuple[tuple[str, str], ...] = ()
    markets: tuple[SignalMarket, ...] = ()
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class SignalAnswer:
    """A signal's validated answer: millionths by token and by futures market (None: keep the
    targets of the config), or whether a rebalance is due, if it is the trigger. `owner` is the
    strategy that uses the signal ("": the portfolio), `source` the distribution that provides it.
    `why` is the reason if there are no new targets, otherwise empty.
    """

    name: str
    owner: str
    spot_ppm: tuple[tuple[str, int], ...] | None = None
    market_ppm: tuple[tuple[str, int], ...] | None = None
    source: str = ""
    why: str = ""
    is_due: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of weights that it has."""
        ppm_by_kind = (("spot", self.spot_ppm), ("futures", self.market_ppm))
        return tuple(kind for kind, weights_ppm in ppm_by_kind if weights_ppm is not None)


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A request to a signal. `why` is the reason if it cannot be run, otherwise empty. One that is
    the trigger is asked whether a rebalance is due, in place of weights.
    """

    settings: SignalSettings
    owner: str
    view: SignalView
    address_by_symbol: tuple[tuple[str, str], ...]
    """Addresses of the assets that the signal may target, by symbol."""
    why: str = ""
    is_trigger: bool = False


class AllocationNeeds(Enum):
    """Data that a method needs in addition to the assets and their bounds."""

    NOTHING = "nothing"
    SUPPLIES = "supplies"
    VOLATILITIES = "volatilities"
    CORRELATIONS = "correlations"
    PRICES = "prices"
    MARKETS = "markets"


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
        method._value_ = name
        method.needs = needs
        return method

    FIXED = "fixed"
    EQUAL = "equal"
    MARKET_CAP = "market_cap", AllocationNeeds.SUPPLIES
    INVERSE_VOLATILITY = "inverse_volatility", AllocationNeeds.VOLATILITIES
    MINIMUM_VARIANCE = "minimum_variance", AllocationNeeds.CORRELATIONS
    RISK_PARITY = "risk_parity", AllocationNeeds.CORRELATIONS
    SIGNAL = "signal", AllocationNeeds.PRICES
    HRP = "hrp", AllocationNeeds.CORRELATIONS
    FUTURES_VOLATILITY = "futures_volatility", AllocationNeeds.MARKETS

    @property
    def needs_returns(self) -> bool:
        """True if the method uses returns."""
        return self.needs in (AllocationNeeds.VOLATILITIES, AllocationNeeds.CORRELATIONS)

    @property
    def needs_window(self) -> bool:
        """True if the method uses the prices of a window."""
        return self.needs_returns or self.needs in (AllocationNeeds.PRICES, AllocationNeeds.MARKETS)


PRICE_ONLY_METHODS = tuple(
    method
    for method in AllocationMethod
    if method.needs
    not in (AllocationNeeds.SUPPLIES, AllocationNeeds.PRICES, AllocationNeeds.MARKETS)
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
    """Supply of a token in base units. `source` names its origin; empty for the token's contract.
    `as_of_s` is the start of its day, Unix seconds, zero for a contract's and without a date;
    it counts until `valid_until_s` (zero: without end).
    """

    token: str
    raw: int
    source: str = ""
    as_of_s: int = 0
    valid_until_s: int = 0


@dataclass(frozen=True, slots=True)
class FuturesSide:
    """A futures market of an allocator: its name at the venue, the asset with the same price, and
    whether the position is long.
    """

    market: str
    token: str
    is_long: bool


@dataclass(frozen=True, slots=True)
class FuturesRisk:
    """Bounds of an allocator of futures weights. `leverage_bps` is the target leverage. If one
    market moves against its position by `stress_move_bps`, the account loses at most
    `stress_loss_bps` of its value. No weight is above `max_position_bps`.
    """

    sides: tuple[FuturesSide, ...]
    leverage_bps: int
    stress_move_bps: int
    stress_loss_bps: int
    max_position_bps: int

    @property
    def max_weight_bps(self) -> int:
        """Maximum weight of one market, as a share of the target notional, rounded down."""
        loss_limit_bps = (
            self.stress_loss_bps * BPS * BPS // (self.leverage_bps * self.stress_move_bps)
        )
        return min(self.max_position_bps, loss_limit_bps)


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """Settings of an allocator. `fixed_tokens` are tokens that keep their target of the config.

    Weights are chosen every `every_s` from returns over `step_s` within the last `window_s`. Each
    asset needs `min_returns` returns and a price not older than `max_age_s`. If no choice is
    possible, the last allocation stays valid for `max_overdue_s` after it was due. A new allocation
    that moves no weight by more than `churn_bps` is ignored, one that moves a weight by more than
    `max_change_bps` waits for the owner (None: none does). `supplies` are the owner's values,
    which override those of the chain. `signal` is the user-defined signal that chooses the weights,
    `futures` the bounds of futures weights.
    """

    method: AllocationMethod
    every_s: int
    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int
    max_overdue_s: int
    churn_bps: int
    initial_weights: InitialWeights
    fixed_tokens: tuple[str, ...]
    limits: tuple[WeightLimit, ...]
    supplies: tuple[TokenSupply, ...] = ()
    signal: SignalSettings | None = None
    futures: FuturesRisk | None = None
    max_change_bps: int | None = None


@dataclass(frozen=True, slots=True)
class OwnedAllocator:
    """Allocator of a part of the wallet: `owner` is the name of its allocations in the store ("":
    the portfolio), `weights_bps` are the targets by token until the first one.
    """

    owner: str
    allocator: AllocatorConfig
    weights_bps: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Chosen weights in bps by token, with sum 10,000. `settings_hash` is the hash of the settings.

    `first_price_s` and `last_price_s` are the times of the first and last price used,
    `return_count` the number of returns per asset. `sample_text` describes the sample, `why` the
    choice. `market_bps` are signed shares of the target notional by market (empty: the config's
    targets).
    """

    at_s: int
    method: AllocationMethod
    weights_bps: tuple[tuple[str, int], ...]
    settings_hash: str
    sample_text: str
    why: str
    first_price_s: int | None = None
    last_price_s: int | None = None
    return_count: int = 0
    market_bps: tuple[tuple[str, int], ...] = ()

    def weight_bps(self, token: str) -> int:
        """Return the weight of a token; 0 if it has none."""
        return dict(self.weights_bps).get(token, 0)
