"""[portfolio.weights]: allocator, interval, sampling of prices, and bounds of weights. [signals.NAME]
and [data.NAME]: user-defined signals, published prices and supplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from agent.config.tables.fields import (
    SHA256_PATTERN,
    SIGNAL_FILE_PATTERN,
    ConfigTable,
    Duration,
    DurationOrOff,
    Share,
    ShareOrOff,
)
from agent.hosts import LOOPBACK_HOSTS
from agent.model import (
    AllocationMethod,
    AllocationNeeds,
    SignalMarket,
    SignalSettings,
)
from agent.units import BPS, DAY_S, HOUR_S, format_bps, format_duration

MOST_INTERVALS = 1_000
"""Maximum number of prices per asset in a window, since they are part of the stored input of a step
that chooses weights.
"""
LONGEST_WINDOW_S = 730 * DAY_S
MOST_OPTIONS = 50
DEFAULT_SUPPLIES_AGE_S = 90 * DAY_S
DEFAULT_MAX_CHANGE_BPS = 2_000
_COMMON_KEYS = ("every", "keep", "churn", "until_chosen")
_RETURN_KEYS = ("window", "step", "min_history", "max_age")
_SPOT_KEYS = ("fixed", "cap", "limits")
_KEYS_BY_NEEDS = {
    AllocationNeeds.NOTHING: (),
    AllocationNeeds.SUPPLIES: ("max_age", "supplies", "supplies_max_age"),
    AllocationNeeds.VOLATILITIES: _RETURN_KEYS,
    AllocationNeeds.CORRELATIONS: _RETURN_KEYS,
    AllocationNeeds.PRICES: (*_RETURN_KEYS, "signal"),
    AllocationNeeds.MARKETS: (*_RETURN_KEYS, "stress_loss"),
}


if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(method.value for method in AllocationMethod)]


class WeightLimitTable(ConfigTable):
    """Bounds of one asset's weight (docs/weights.md)."""

    min: Share = 0
    """Lowest weight."""
    max: Share = BPS
    """Highest weight."""


class AllocatorTable(ConfigTable):
    """An allocator (docs/weights.md). Every key of its kind is required but `fixed`, `cap`,
    `limits`, `max_change`, `supplies`.
    """

    kind: MethodName
    """Kind of allocator."""
    every: Duration | None = None
    """Time between two choices."""
    window: Duration | None = None
    """Time whose returns count."""
    step: Duration | None = None
    """Time from one price to the next."""
    min_history: Duration | None = None
    """Shortest history from which weights are chosen."""
    max_age: Duration | None = None
    """Largest age of the newest price."""
    keep: Duration | None = None
    """How long the last choice applies beyond `every`."""
    churn: Share | None = None
    """A choice is ignored if no weight changes by more than this."""
    max_change: ShareOrOff = None
    """A choice that changes a weight by more than this waits for the owner; default 20%, of kind
    "equal" off.
    """
    until_chosen: Literal["targets", "wait"] | None = None
    """Before the first choice: the targets of the assets, or no trades."""
    fixed: list[str] = Field(default_factory=list)
    """Assets that keep their own target."""
    cap: Share | None = None
    """Highest weight of any free asset."""
    limits: dict[str, WeightLimitTable] = Field(default_factory=dict)
    """Bounds of single assets' weights."""
    supplies: str | None = None
    """File of supplies, in place of those of the contracts; "package": those that trimtab lists."""
    supplies_max_age: DurationOrOff | None = DEFAULT_SUPPLIES_AGE_S
    """Age above which a line with an as_of holds; default 90d."""
    signal: str | None = None
    """Name of the signal in [signals]."""
    stress_loss: Share | None = None
    """Most of the account value that one market may lose in a stress move."""

    @property
    def method(self) -> AllocationMethod:
        """The kind as an AllocationMethod."""
        return AllocationMethod(self.kind)

    @property
    def max_change_bps(self) -> int | None:
        """Largest change of a weight that does not wait for the owner; None: no limit."""
        reads_prices = self.method.needs is not AllocationNeeds.NOTHING
        if reads_prices and "max_change" not in self.model_fields_set:
            return DEFAULT_MAX_CHANGE_BPS
        return self.max_change

    @model_validator(mode="after")
    def _check_keys_of_kind(self) -> AllocatorTable:
        method = self.method
        allowed_keys = {*_KEYS_BY_NEEDS[method.needs]}
        if method is not AllocationMethod.FIXED:
            allowed_keys |= {
                *_COMMON_KEYS,
                "max_change",
                *(() if method.needs is AllocationNeeds.MARKETS else _SPOT_KEYS),
            }
        unknown_keys = sorted((self.model_fields_set - {"kind"}) - allowed_keys)
        if unknown_keys:
            raise ValueError(f"{unknown_keys[0]}: not a key of kind {self.kind}; remove it")
        missing_keys = [
            key
            for key in (*_COMMON_KEYS, *_RETURN_KEYS, "signal", "stress_loss")
            if key in allowed_keys and getattr(self, key) is None
        ]
        if missing_keys:
            pronoun = "it" if len(missing_keys) == 1 else "them"
            raise ValueError(
                f"{', '.join(missing_keys)}: missing; kind = {self.kind!r} needs {pronoun}, see"
                " docs/weights.md"
            )
        if self.max_change_bps is not None and self.max_change_bps <= (self.churn or 0):
            raise ValueError(
                f"max_change: {format_bps(self.max_change_bps)} is not above churn, so that every choice"
                ' waits for the owner; write a larger share, or "off"'
            )
        if self.supplies_max_age == 0:
            raise ValueError('supplies_max_age: 0s; write a time above 0s, or "off"')
        require_sampling(self.every, self.step, self.window, self.min_history, self.max_age)
        return self


def require_sampling(
    every: int | None,
    step: int | None,
    window: int | None,
    min_history: int | None,
    max_age: int | None,
) -> None:
    """Raise ValueError if recorded prices, one per hour, cannot be sampled like this. All arguments
    are in seconds.
    """
    if every is not None and every < HOUR_S:
        raise ValueError(
            f"every: {format_duration(every)} is shorter than an hour, but prices are recorded once an hour;"
            " write for example 7d"
        )
    if step is None or window is None or min_history is None or max_age is None:
        return
    if step < HOUR_S:
        raise ValueError(
            f"step: {format_duration(step)} is shorter than an hour, but prices are recorded once an hour; write"
            " for example 1d"
        )
    if window > LONGEST_WINDOW_S or window > MOST_INTERVALS * step:
        raise ValueError(
            f"window: more than 730 days or {MOST_INTERVALS} steps; use a longer step or a"
            " shorter window"
        )
    if not 2 * step <= min_history <= window:
        raise ValueError(
            "min_history: not between two steps and the window; write for example 30d with step ="
            " '1d', window = '90d'"
        )
    if max_age < step:
        raise ValueError(
            "max_age: shorter than a step, which makes every price too old; write for"
            " example 2d with step = '1d'"
        )


def require_valid_allocator(
    allocator_table: AllocatorTable, target_bps_by_symbol: Mapping[str, int], numeraire: str
) -> None:
    """Raise ValueError if the allocator does not fit the assets, whose targets are in bps by symbol:
    unknown names, infeasible bounds, or a numeraire without returns.
    """
    if (
        allocator_table.method.needs is AllocationNeeds.MARKETS
        or allocator_table.method is AllocationMethod.FIXED
    ):
        return
    for weights_key, symbols in (
        ("fixed", allocator_table.fixed),
        ("limits", list(allocator_table.limits)),
    ):
        unknown_symbols = [
            listed_symbol for listed_symbol in symbols if listed_symbol not in target_bps_by_symbol
        ]
        if unknown_symbols:
            raise ValueError(
                f"weights.{weights_key}: {unknown_symbols[0]!r} is not an asset; remove it or correct its"
                " spelling"
            )
    fixed_and_limited_symbols = [
        listed_symbol
        for listed_symbol in allocator_table.limits
        if listed_symbol in allocator_table.fixed
    ]
    if fixed_and_limited_symbols:
        raise ValueError(
            f"weights.limits: {fixed_and_limited_symbols[0]} is fixed at its target; remove it from fixed or from limits"
        )
    unfixed_symbols = [
        symbol for symbol in target_bps_by_symbol if symbol not in allocator_table.fixed
    ]
    if len(unfixed_symbols) < 2:
        raise ValueError(
            f"weights.fixed: leaves {len(unfixed_symbols)} assets to choose weights for; leave at least two,"
            " or use kind = 'fixed'"
        )
    if allocator_table.method.needs_returns and numeraire in unfixed_symbols:
        raise ValueError(
            f"weights.fixed: {numeraire} is the numeraire, whose price is always 1;"
            f" keep it at its target: fixed = ['{numeraire}']"
        )
    needs_correlations = allocator_table.method.needs is AllocationNeeds.CORRELATIONS
    if (
        needs_correlations
        and allocator_table.step
        and allocator_table.min_history
        and allocator_table.min_history < (len(unfixed_symbols) + 1) * allocator_table.step
    ):
        raise ValueError(
            f"weights.min_history: {len(unfixed_symbols)} assets need at least {len(unfixed_symbols) + 1} steps for a"
            " non-singular covariance; write a longer one"
        )
    rest_bps = BPS - sum(target_bps_by_symbol[symbol] for symbol in allocator_table.fixed)
    min_weights_bps, max_weights_bps = zip(
        *(weight_bounds(allocator_table, symbol) for symbol in unfixed_symbols), strict=True
    )
    if not sum(min_weights_bps) <= rest_bps <= sum(max_weights_bps):
        raise ValueError(
            f"weights.limits: they allow {format_bps(sum(min_weights_bps))} to {format_bps(sum(max_weights_bps))} in total, but"
            f" {format_bps(rest_bps)} must be allocated; widen them, or raise cap"
        )
    for listed_symbol in allocator_table.limits:
        _require_ordered_bounds(allocator_table, listed_symbol)


def _require_ordered_bounds(allocator_table: AllocatorTable, symbol: str) -> None:
    """Raise ValueError if the smallest weight of a limited asset is above its largest."""
    min_bps, max_bps = weight_bounds(allocator_table, symbol)
    if min_bps > max_bps:
        max_key = "max" if "max" in allocator_table.limits[symbol].model_fields_set else "cap"
        raise ValueError(
            f"weights.limits.{symbol}: min {format_bps(min_bps)} is above {max_key} {format_bps(max_bps)};"
            f" lower min, or raise {max_key}"
        )


def weight_bounds(allocator_table: AllocatorTable, symbol: str) -> tuple[int, int]:
    """Return the smallest and largest weight that the allocator may choose for an asset, in bps."""
    weight_limit = allocator_table.limits.get(symbol)
    cap_bps = BPS if allocator_table.cap is None else allocator_table.cap
    if weight_limit is None:
        return 0, cap_bps
    return weight_limit.min, weight_limit.max if "max" in weight_limit.model_fields_set else cap_bps


class DataTable(ConfigTable):
    """Published data: downloaded once, and kept in the folder data beside the config
    (docs/weights.md).
    """

    source: str = Field(min_length=1)
    """A file, or an https address."""
    kind: Literal["prices", "supplies"] = "prices"
    """What it has."""
    sha256: str | None = Field(default=None, pattern=SHA256_PATTERN)
    """Hash that its content must have."""
    symbols: dict[str, str] = Field(default_factory=dict, max_length=MOST_OPTIONS)
    """Assets by the file's symbols."""
    bar: str = ""
    """Duration from the time of a row to its close: "1d" if times are those of opens. Empty: to the
    end of its bar, if the file has bars.
    """

    @field_validator("source")
    @classmethod
    def _check_source(cls, file_or_url: str) -> str:
        url_parts = urlsplit(file_or_url)
        is_local = url_parts.scheme == "http" and url_parts.hostname in LOOPBACK_HOSTS
        if "://" in file_or_url and not (url_parts.scheme == "https" or is_local):
            raise ValueError(f"{file_or_url!r} is not an https address; write one, or a file")
        if url_parts.username or url_parts.password:
            raise ValueError("an address with a password; publish it without one, or use a file")
        return file_or_url


LONGEST_TIMEOUT_S = 60


class SignalTable(ConfigTable):
    """One signal of yours (docs/signals.md)."""

    timeout: Duration
    """Longest time of an answer."""
    file: str | None = Field(default=None, pattern=SIGNAL_FILE_PATTERN)
    """FILE.py:FUNCTION beside the config; without it the name is that of an entry point."""
    sha256: str | None = Field(default=None, pattern=SHA256_PATTERN)
    """Hash of the file, which is not run with another one."""
    options: dict[str, str] = Field(default_factory=dict, max_length=MOST_OPTIONS)
    """Options passed to it as the text that stands in the config, such as true."""

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: int) -> int:
        if not 0 < timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(f"{timeout}s; write above 0s and at most {LONGEST_TIMEOUT_S}s")
        return timeout

    @field_validator("options", mode="before")
    @classmethod
    def _options_as_text(cls, options: object) -> object:
        if not isinstance(options, dict):
            return options
        return {
            key: str(option).lower() if isinstance(option, int | float) else option
            for key, option in options.items()
        }

    def settings(self, name: str, markets: tuple[SignalMarket, ...] = ()) -> SignalSettings:
        """Return the settings of the signal, which may target these futures markets."""
        return SignalSettings(
            name,
            self.timeout,
            tuple(sorted(self.options.items())),
            markets,
            self.file or "",
            self.sha256 or "",
        )

    @model_validator(mode="after")
    def _check_hash(self) -> SignalTable:
        if self.file is not None and self.sha256 is None:
            raise ValueError("sha256: missing; write what sha256sum prints for the file")
        if self.file is None and self.sha256 is not None:
            raise ValueError("sha256: without file; name FILE.py:FUNCTION, or remove it")
        return self
