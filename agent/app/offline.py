"""Offline evaluation, without a chain or a store: plan saved inputs, replay recorded steps, answer
what-if questions.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import codec, engine
from agent.app.documents.status import least_totals_of_values
from agent.config.build import starting_limits
from agent.config.triggers import parse_band
from agent.errors import (
    EXIT_DIFFERS,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    TrimtabError,
    printable_text,
)
from agent.execution.step_context import StepOutcome
from agent.model import (
    AdjustFutures,
    AdjustLiquidity,
    Asset,
    AssetDrift,
    Destination,
    Every,
    Halt,
    History,
    Hold,
    ManualAction,
    Plan,
    Rebalance,
    StepInput,
    Threshold,
    TopUp,
    TradeSide,
)
from agent.planning import proposals, requests
from agent.planning.proposals import Proposer
from agent.policy import minimum
from agent.policy.drift import (
    alert_prices,
    corrections,
    drifts_from_balances,
    ideal_trades,
    investable_total,
    rebalance_goal,
    restrict_to_side,
    unreachable_reasons,
)
from agent.policy.minimum import correction_drift
from agent.policy.triggers.bands import validate_band
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import SHORTEST_S
from agent.store import recorder
from agent.store.recorder import RecordedStep
from agent.units import BPS, Price, Token, Value, decimal_text, parse_bps, parse_raw, safe_label

# --- Plans from a saved input.

if TYPE_CHECKING:
    from agent.app.documents.status import LeastTotalDocument


MOST_DECIMALS = 255
"""Largest decimals that a contract can return."""
WIDEST_SPACING = 16_383
"""Widest tick spacing that UniswapV3Factory.enableFeeAmount accepts."""


def input_text(step_input: StepInput) -> str:
    """Return the step input as `plan --save-input` writes it."""
    return codec.dumps(step_input) + "\n"


def plan_from_input(text: str) -> StepOutcome:
    """Plan a saved input, without the guards that need live evidence. Raises ConfigError."""
    return plan_from(codec.loads(StepInput, text))


def plan_from(step_input: StepInput) -> StepOutcome:
    """Plan a parsed input, without the guards that need live evidence. Raises ConfigError."""
    require_possible(step_input)
    try:
        return engine.evaluate_input(step_input, proposals.rebalance, None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The file is well-formed, but its parts contradict each other.
        raise ConfigError(
            f"the input is inconsistent: {error!r}",
            "use a file written by plan --save-input",
        ) from None


def require_possible(step: StepInput) -> None:
    """Raise ConfigError for impossible decimals or pools, on which a decision might not
    terminate.
    """
    _require_decimals(step)
    _require_possible_pools(step)


def _require_decimals(step: StepInput) -> None:
    """Validate decimals before computing powers of ten."""
    portfolio = step.portfolio
    tokens = (portfolio.numeraire, *(asset.token for asset in portfolio.assets), *portfolio.hubs)
    for address, decimals in (
        *((token.address, token.decimals) for token in tokens),
        *((answer.feed, answer.decimals) for answer in step.snapshot.feeds),
    ):
        if not 0 <= decimals <= MOST_DECIMALS:
            raise ConfigError(
                f"the input gives {address} {decimals} decimals",
                "use a file written by plan --save-input",
            )


def _require_possible_pools(step: StepInput) -> None:
    """Raise ConfigError for a pool in a state that no contract can have."""
    for pool in step.snapshot.pools:
        if pool.fault:
            raise ConfigError(
                f"the input says that pool {pool.address} has {pool.fault}",
                "use a file written by plan --save-input",
            )


# --- Replay of recorded steps by the present code; only reads files.


Document = dict[str, Any]
MOST_BYTES = 64 * 1024 * 1024
"""Largest size of a step file."""
MOST_SHOWN = 20
"""Differences shown per step; further ones are counted."""
SAME, DIFFERENT, BY_HAND, UNREADABLE = "same", "different", "by hand", "unreadable"
DECIDED = tuple(
    kind.__name__.lower() for kind in (Hold, Halt, Rebalance, AdjustLiquidity, TopUp, AdjustFutures)
)
"""Decisions of the agent; all others, such as payouts, are the owner's."""


def replay(folder: Path) -> Document:
    """Replay every step in a folder, in the order of file names.

    Each step is proposed again by its original request ("asked"), the policy's or the owner's, and
    decision, reason and plan are compared, without the guards that need live evidence. Files that
    are not steps are reported and skipped. "exit" is the exit code. Raises ConfigError without
    steps.
    """
    steps = [_replay_document(path) for path in _files(folder)]
    if not steps:
        raise ConfigError(
            f"{folder}: holds no recorded steps",
            "name the folder of record.dir, or of trimtab run --record",
        )
    counted = Counter(step["result"] for step in steps)
    code = EXIT_OK
    if counted[DIFFERENT]:
        code = EXIT_DIFFERS
    elif counted[UNREADABLE]:
        code = EXIT_USAGE
    return {
        "folder": str(folder),
        "version": version("trimtab"),
        "steps": steps,
        **{
            name.replace(" ", "_"): counted[name] for name in (SAME, DIFFERENT, BY_HAND, UNREADABLE)
        },
        "exit": code,
    }


def _files(folder: Path) -> Iterator[Path]:
    """Yield the .json files of the folder itself, sorted by name."""
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.endswith(".json") and not entry.name.startswith(".")
        )
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}", "name a folder written by trimtab run --record"
        ) from None
    yield from (folder / name for name in names)


def _replay_document(path: Path) -> Document:
    """Replay one file; an invalid one is reported as unreadable."""
    try:
        step = recorder.load_recorded_step(_read(path))
        require_possible(step.input)
        facts = _facts(step)
    except TrimtabError as error:
        return {"file": printable_text(path.name), "result": UNREADABLE, "why": error.message}
    return {"file": printable_text(path.name), **facts, **_compared(step)}


def _read(path: Path) -> str:
    """Return the text of a regular file; never follows a link and never blocks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                raise ConfigError(
                    "not a regular file", "only regular files of up to 64 MiB are read"
                )
            return file.read(MOST_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError("it is not text") from None


def _facts(step: RecordedStep) -> Document:
    head = step.input.snapshot.head
    return {
        "step": step.step,
        "time": _utc(step.now_s),
        "block": head.number,
        "chain_id": head.chain_id,
        "version": step.version,
        "books": step.books,
        "config": step.config,
        "decision": step.decision,
        "reason": step.reason,
        "outcome": step.outcome,
        "asked": None if step.asked is None else requests.requester_name(step.asked),
    }


def _compared(step: RecordedStep) -> Document:
    """Replay the step, and return the differences of decision, reason and plan."""
    if step.decision is None:
        return {"result": UNREADABLE, "why": "the step was interrupted before it decided"}
    if (propose := _proposer(step)) is None:
        return {"result": BY_HAND, "differs": [], "more": 0}
    try:
        differs = list(_differences(step, engine.evaluate_input_once(step.input, propose, None)))
    except Exception as error:  # an error in place of a decision is a difference too
        differs = [
            _difference("error", None, f"{type(error).__name__}: {printable_text(str(error))}")
        ]
    return {
        "result": DIFFERENT if differs else SAME,
        "differs": differs[:MOST_SHOWN],
        "more": max(0, len(differs) - MOST_SHOWN),
    }


def _proposer(step: RecordedStep) -> Proposer | None:
    """Return the step's proposer; None if the owner acted and nothing was proposed."""
    if step.asked is None:
        return None if _is_manual(step) else proposals.rebalance
    return None if isinstance(step.asked, ManualAction) else requests.proposer(step.asked)


def _is_manual(step: RecordedStep) -> bool:
    """True if an old record without a request was an action of the owner: a swap, a payment, a
    cancel or a revocation.
    """
    decision = None if step.plan is None else step.plan.decision
    swapped = isinstance(decision, Rebalance) and decision.by_hand
    if swapped or step.decision not in DECIDED:
        return True
    # a halt with any other outcome was a cancel or a revocation
    return step.decision == "halt" and step.outcome not in ("halt", "error")


def _differences(step: RecordedStep, outcome: StepOutcome) -> Iterator[Document]:
    now = type(outcome.decision).__name__.lower()
    if now != step.decision:
        yield _difference("decision", step.decision, now)
    if (
        step.plan is None
        and outcome.plan is None
        and step.outcome != "error"
        and not (step.reason or "").endswith(outcome.reason)
    ):
        yield _difference("reason", step.reason, outcome.reason)
    yield from _between("plan", _without_verdicts(step.plan), _without_verdicts(outcome.plan))


def _without_verdicts(plan: Plan | None) -> Any:
    """Return a plan without verdicts as JSON data; None without a plan."""
    return None if plan is None else codec.to_jsonable(replace(plan, verdicts=()))


def _between(place: str, before: Any, now: Any) -> Iterator[Document]:
    """Yield every leaf in which two trees differ; a branch of only one tree counts as one leaf."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _between(f"{place}.{key}", before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _between(f"{place}[{number}]", one, other)
    elif before != now:
        yield _difference(place, before, now)


def _difference(what: str, before: Any, now: Any) -> Document:
    return {"what": what, "recorded": before, "now": now}


def _utc(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        raise ConfigError(f"{seconds} is not a time") from None


# --- What-if: drift, trades and alert prices of targets and values on the command line.


PLACES = 18
"""Decimal places of values: amounts are integers of 10^-18."""
MIN_ASSETS = 2
DESTINATIONS = (Destination.TARGET, Destination.HALFWAY)
NO_BAND = Every(SHORTEST_S)
"""Schedule that stands in for a band: it corrects any drift when due."""
_NEW = History(None, None, Fraction(0), Fraction(0), 0, 0, None)


@dataclass(frozen=True, slots=True)
class AlertPrices:
    """Prices at which an asset leaves its band if its price moves alone; None, with the reason, if
    no price does. Without a given price they are multiples of the present one.
    """

    low: Price | None
    high: Price | None
    price: Price
    why_low: str
    why_high: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Result of a what-if.

    `trades` are the trades of the band or schedule by symbol, in the unit of the values, zero for a
    hold; `to_target` are the trades that restore the targets. `drifts` are in units of 10^-18.
    `least` are the minimum totals of these settings at three gas prices.
    """

    drifts: tuple[AssetDrift, ...]
    acts: bool
    reason: str
    trades: Mapping[str, Value]
    to_target: Mapping[str, Value]
    alerts: Mapping[str, AlertPrices]
    banded: bool
    least: tuple[LeastTotalDocument, ...] = ()

    @property
    def total(self) -> Value:
        """Sum of all values."""
        return investable_total(self.drifts) / Fraction(10**PLACES)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the number of assets."""
        return tuple(minimum.asset_count_warnings(len(self.drifts)))

    @property
    def values(self) -> dict[str, Value]:
        """Value of each asset by symbol."""
        return {drift.symbol: Fraction(drift.raw, 10**PLACES) for drift in self.drifts}

    @property
    def excess(self) -> dict[str, Value]:
        """Value above its target of each overweight asset, by symbol."""
        return {symbol: -trade for symbol, trade in self.to_target.items() if trade < 0}

    @property
    def triggered(self) -> tuple[str, ...]:
        """Symbols outside their bands."""
        return tuple(drift.symbol for drift in self.drifts if self.banded and drift.outside)


def what_if(  # noqa: PLR0913
    target: str,
    value: str,
    band: str = "",
    *,
    price: str = "",
    destination: str = "target",
    only: str = "",
    numeraire: str = "",
    native: str = "3000",
) -> WhatIf:
    """Compute drift, trades and alert prices by the functions of a live step. Raises ConfigError
    naming the option.

    `target`, `value` and `price` are comma-separated SYMBOL=NUMBER; a bare number in `target` is
    percent. `band` is "10%rel" or "5%abs" for all assets, SYMBOL=… for one asset. `only` needs a
    `numeraire`; `native` is the price of the native coin, for gas.
    """
    targets = parse_targets(target)
    values = {
        symbol: parse_raw(text, PLACES, f"--value {symbol}")
        for symbol, text in parse_pairs(value, "--value").items()
    }
    _require_same(targets, values)
    if sum(values.values()) == 0:
        raise ConfigError("--value sums to 0", "give current values, such as BTC=5800,USD=1500")
    common, own = parse_bands(band, targets)
    if numeraire and numeraire not in targets:
        raise ConfigError(
            f"--numeraire: {numeraire!r} is not an asset", f"choose from {', '.join(targets)}"
        )
    assets = [
        Asset(Token(symbol, symbol, PLACES), bps, 0, band=own.get(symbol))
        for symbol, bps in targets.items()
    ]
    unit_prices = dict.fromkeys(targets, Fraction(1))
    banded, trigger = common is not None, common or NO_BAND
    drifts = drifts_from_balances(assets, values, unit_prices, trigger)
    evaluation = evaluate_trigger(trigger, drifts, 0, _NEW)
    side = _side(only, numeraire, banded)
    goal = restrict_to_side(
        drifts, rebalance_goal(drifts, _destination(destination)), side, numeraire
    )
    trades = corrections(drifts, goal)
    reason = evaluation.reason
    if not banded:
        reason = "no band was given: this is the action of a schedule when it is due"
    trading = any(trades.values())
    if evaluation.fired and not trading:
        reason += "; nothing to do"
    return WhatIf(
        drifts=drifts,
        acts=evaluation.fired and trading,
        reason=reason,
        trades={
            symbol: amount / 10**PLACES if evaluation.fired else Fraction(0)
            for symbol, amount in trades.items()
        },
        to_target={symbol: amount / 10**PLACES for symbol, amount in ideal_trades(drifts).items()},
        alerts=_alerts(drifts, _prices(price, targets), banded, numeraire),
        banded=banded,
        least=_least(drifts, common, numeraire, native),
    )


def _least(
    drifts: tuple[AssetDrift, ...], band: Threshold | None, numeraire: str, native: str
) -> tuple[LeastTotalDocument, ...]:
    """Return the minimum totals under the limits of a new config."""
    limits = starting_limits(Token("", numeraire or "USDC", 0))
    rows = [
        (
            drift.symbol,
            drift.target_bps,
            correction_drift(band, drift.target_bps, (drift.band_low_bps, drift.band_high_bps)),
        )
        for drift in drifts
    ]
    coin = Fraction(parse_raw(native, PLACES, "--native"), 10**PLACES)
    least_trade = limits.min_trade or Fraction(0)
    return tuple(
        least_totals_of_values(
            rows,
            numeraire,
            limits.plan_cost_bps or 0,
            least_trade,
            coin,
            investable_total(drifts) / 10**PLACES,
        )
    )


def _alerts(
    drifts: tuple[AssetDrift, ...], prices: Mapping[str, Fraction], banded: bool, numeraire: str
) -> dict[str, AlertPrices]:
    alerts = {}
    for drift in drifts:
        now = prices.get(drift.symbol, Fraction(1))
        low, high = alert_prices(drifts)[drift.token]
        why_low, why_high = unreachable_reasons(drift, drifts)
        if not banded:
            low = high = None
            why_low = why_high = "no band was given"
        elif drift.symbol == numeraire:
            low = high = None
            why_low = why_high = "it is the unit of all values and has no price"
        alerts[drift.symbol] = AlertPrices(
            None if low is None else low * now,
            None if high is None else high * now,
            now,
            why_low,
            why_high,
        )
    return alerts


def parse_pairs(text: str, option: str) -> dict[str, str]:
    """Parse comma-separated SYMBOL=TEXT into text by symbol. Raises ConfigError naming the
    option.
    """
    pairs: dict[str, str] = {}
    for part in text.split(","):
        symbol, equals, rest = (piece.strip() for piece in part.partition("="))
        if not equals or not rest or safe_label(symbol, "") != symbol or not symbol:
            raise ConfigError(
                f"{option}: {part.strip()!r} is not SYMBOL=NUMBER",
                "for example BTC=50,ETH=30,USD=20",
            )
        if symbol in pairs:
            raise ConfigError(f"{option}: {symbol} is given twice", "give each asset once")
        pairs[symbol] = rest
    return pairs


def parse_targets(text: str) -> dict[str, int]:
    """Parse --target into basis points by symbol; a bare number is percent. Raises ConfigError."""
    targets = {}
    for symbol, share in parse_pairs(text, "--target").items():
        bare = share.replace(".", "", 1).isdigit()
        targets[symbol] = parse_bps(f"{share}%" if bare else share, f"--target {symbol}")
    return targets


def _require_same(targets: Mapping[str, int], values: Mapping[str, int]) -> None:
    for option, given, other in (("--value", values, targets), ("--target", targets, values)):
        missing = [symbol for symbol in other if symbol not in given]
        if missing:
            raise ConfigError(
                f"{option}: {missing[0]} is missing", f"add it; {missing[0]}=0 if none is held"
            )
    if len(targets) < MIN_ASSETS:
        raise ConfigError("--target needs at least two assets", "for example BTC=50,USD=50")
    total_bps = sum(targets.values())
    if total_bps != BPS:
        raise ConfigError(
            f"--target: sums to {decimal_text(total_bps, 2)}%, not 100%",
            "a bare number is percent here: write BTC=50 or BTC=50%",
        )


def parse_bands(
    text: str, targets: Mapping[str, int]
) -> tuple[Threshold | None, dict[str, Threshold]]:
    """Return the common band (relative, absolute or both), and the bands of single assets by
    symbol.
    """
    common: Threshold | None = None
    own: dict[str, Threshold] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        symbol, equals, rest = (piece.strip() for piece in part.partition("="))
        band = parse_band(rest if equals else part, "--band")
        validate_band(band, "--band")
        if equals and symbol not in targets:
            raise ConfigError(
                f"--band: {symbol!r} is not an asset", f"choose from {', '.join(targets)}"
            )
        if equals:
            own[symbol] = _combined(own.get(symbol), band)
        else:
            common = _combined(common, band)
    if own and common is None:
        raise ConfigError(
            "--band: only single assets have a band",
            "give the common band first, such as 10%rel,BTC=5%abs",
        )
    return common, own


def _combined(first: Threshold | None, second: Threshold) -> Threshold:
    """Combine a relative with an absolute width."""
    if first is None:
        return second
    if (first.absolute_bps is None) == (second.absolute_bps is None):
        raise ConfigError(
            "--band: the same kind twice",
            "give one of each, such as 10%rel,5%abs; the narrower counts",
        )
    return replace(
        first,
        absolute_bps=first.absolute_bps or second.absolute_bps,
        relative_bps=first.relative_bps or second.relative_bps,
    )


def _prices(text: str, targets: Mapping[str, int]) -> dict[str, Fraction]:
    prices: dict[str, Fraction] = {}
    if not text:
        return prices
    for symbol, number in parse_pairs(text, "--price").items():
        if symbol not in targets:
            raise ConfigError(
                f"--price: {symbol!r} is not an asset", f"choose from {', '.join(targets)}"
            )
        prices[symbol] = Fraction(parse_raw(number, PLACES, f"--price {symbol}"), 10**PLACES)
        if prices[symbol] == 0:
            raise ConfigError(f"--price {symbol}: must be above 0", "give its current price")
    return prices


def _destination(text: str) -> Destination:
    names = [destination.value for destination in DESTINATIONS]
    if text not in names:
        raise ConfigError(f"--destination: {text!r}", f"choose from {', '.join(names)}")
    return Destination(text)


def _side(text: str, numeraire: str, banded: bool) -> TradeSide | None:
    if not text:
        return None
    names = [side.value for side in TradeSide]
    if text not in names:
        raise ConfigError(f"--only: {text!r}", f"choose from {', '.join(names)}")
    side = TradeSide(text)
    if side in (TradeSide.SELL, TradeSide.BUY) and not numeraire:
        raise ConfigError(
            f"--only {text}: needs --numeraire for the proceeds", "for example --numeraire USD"
        )
    if side in (TradeSide.WINNERS, TradeSide.LOSERS) and not banded:
        raise ConfigError(f"--only {text}: needs --band", "for example --band 10%rel")
    return side
