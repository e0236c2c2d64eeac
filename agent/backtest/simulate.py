"""Runs the engine's step over every bar of a price table, and tells what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

from agent import codec
from agent.backtest.columns import only_wanted
from agent.backtest.desk import Desk, open_desk
from agent.backtest.ended import ended, words
from agent.backtest.flows import IN_NUMERAIRE
from agent.backtest.funded import funded
from agent.backtest.funding import FundingSeries, require_prices
from agent.backtest.paths import Aims, aims_of, harvested, paths_of, returns
from agent.backtest.quiet import Quiet
from agent.backtest.result import Rebalanced, SimulationResult
from agent.backtest.table import PriceTable
from agent.backtest.taxes import TaxBooks
from agent.backtest.wanted import Settings, Wanted
from agent.backtest.world import EndOfTable, Fill, Wallet, World, at_targets
from agent.errors import ConfigError, Refused, Retryable
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Hold, Zone
from agent.policy.bands import has_band

Progress = Callable[[int, int], None]
"""Is told how many bars of how many are done."""
LONGEST = 200
LIBRARIES = ("trimtab", "numpy", "scipy", "polars")
__all__ = ["Progress", "Rebalanced", "Run", "SimulationResult", "digest", "parameters", "run", "simulate"]


def simulate(
    wanted: Wanted, table: PriceTable, settings: Settings, progress: Progress | None = None, funding: Sequence[FundingSeries] = ()
) -> SimulationResult:
    """The whole of it. The wallet begins at its targets, at the first bar at which each of its symbols has a price.

    `funding` changes nothing that is done; what shorts of the holdings would have got by it is told beside the rest.
    Raises ConfigError for symbols that the table lacks, and whatever a step raises that is no refusal and no network.
    """
    with run(wanted, table, settings) as going:
        require_prices(funding, table.symbols, going.world.table.times_s)
        while going.next():
            if progress is not None:
                progress(going.world.bar + 1, going.world.table.bars)
        found = going.result()
        if not funding:
            return found
        carried, notes = funded(going.world, funding)
        return replace(found, funding=carried, notes=(*found.notes, *notes))


class Run:
    """A simulation under way: each `next` goes on to the next bar that has to be looked at. A context that closes its store."""

    def __init__(self, wanted: Wanted, table: PriceTable, settings: Settings) -> None:
        self.world = _world(wanted, table, settings)
        self.outcome: Outcome | None = None
        self._context = open_desk(self.world)
        self._aims: list[Aims] = []
        self._looked = self._halted = 0
        self._refused: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._ended: tuple[str, ...] = ()
        self._quiet = Quiet(self.world)

    def __enter__(self) -> Run:
        self.desk: Desk = self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def next(self) -> bool:
        """Looks at the next bar; False once there is none."""
        world, every = self.world, self.world.settings.looks_at_all
        begun = self._looked > 0
        bar = world.bar if not begun else world.bar + 1 if every else min(self._quiet.next_bar(world.bar), world.next_flow())
        if begun and not every:
            self._halted += self._quiet.halted(world.bar + 1, bar)
            _count(self._kept, "policy.trigger", self._quiet.waited(world.bar + 1, bar))
        if bar >= world.table.bars:
            return False
        try:
            if begun:
                world.go_to(bar)
            self._look()
        except EndOfTable:
            self._ended = (f"{len(world.pending)} transaction was on its way when the data ended",)
            return False
        return True

    def _look(self) -> None:
        self._looked += 1
        self.outcome = None
        try:
            self.outcome = outcome = self.desk.step()
        except (Retryable, Refused) as error:
            _count(self._refused, error.message)
            return
        self._quiet.looked(outcome)
        drifts, wanted = outcome.decided.drifts, self.world.wanted
        banded = has_band(wanted.policy.trigger) and wanted.split is None
        if drifts:
            aims = aims_of(self.world.bar, drifts, banded or isinstance(wanted.policy.trigger, Zone))
            if not self._aims or (aims.targets, aims.bands) != (self._aims[-1].targets, self._aims[-1].bands):
                self._aims.append(aims if self._aims else replace(aims, bar=0))
        self._halted += outcome.kind is OutcomeKind.HALT
        if outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.FAILED):
            failing = [verdict.guard for verdict in outcome.verdicts if not verdict.passed]
            _count(self._refused, ", ".join(failing) or outcome.reason)
        elif isinstance(outcome.decision, Hold):
            outside = banded and any(drift.outside for drift in drifts)
            if kept_by := outcome.decision.kept_by or ("policy.trigger" if outside else ""):
                _count(self._kept, kept_by)

    def result(self) -> SimulationResult:
        """What was found so far, up to the last bar of the table."""
        world, wanted, money = self.world, self.world.wanted, self.world.money
        if world.bar < world.table.bars - 1:
            world.go_to(world.table.bars - 1)
        world.tell()
        paths, flows, fills = paths_of(world, self._aims), tuple(world.flowed), world.fills
        rebalances = _rebalances(world, fills)
        scale = 10**money.decimals
        shares = [one.turnover / (Fraction(float(paths.equity[one.bar])) * scale) for one in rebalances]
        start = world.settings.start_value * scale
        twr, hold_twr = returns(world, start, flows)
        final = world.value(world.wallet.balances) - world.gas_paid
        gone = ended(world, final)
        books = TaxBooks(self.desk.store, wanted.portfolio, wanted.tax)
        return SimulationResult(
            symbols=tuple(asset.token.symbol for asset in wanted.portfolio.assets),
            numeraire=money.symbol,
            decimals=money.decimals,
            times_s=world.table.times_s,
            equity=paths.equity,
            hold=paths.hold,
            weights=paths.weights,
            rebalances=rebalances,
            final_value=final,
            hold_value=world.value(world.hold),
            start_value=start,
            turnover=sum(shares, Fraction(0)),
            fees=sum((fill.fees for fill in fills), Fraction(0)),
            impact=sum((fill.impact for fill in fills), Fraction(0)),
            gas=world.gas_paid,
            balances=tuple(world.wallet.balances.items()),
            bars=world.table.bars,
            looked=self._looked,
            halted=self._halted,
            refused=tuple(sorted(self._refused.items())),
            notes=(*world.table.notes, *self._ended, *(words(one, money.symbol, money.decimals) for one in gone)),
            config_hash=digest(wanted, world.settings),
            data_hash=world.table.digest,
            seed=world.settings.seed,
            versions=_versions(),
            kept=tuple(sorted(self._kept.items())),
            flows=flows,
            twr=twr,
            hold_twr=hold_twr,
            prices=paths.prices,
            targets=paths.targets,
            bands=paths.bands,
            lots=wanted.tax.method.value,
            taxes=books.years(int(world.table.times_s[0]), int(world.table.times_s[-1])),
            parameters=parameters(world.settings),
            policy=codec.dumps(wanted.policy),
            harvest=harvested(world, paths, rebalances),
            ended=gone,
        )


def run(wanted: Wanted, table: PriceTable, settings: Settings) -> Run:
    """A simulation to be gone through bar by bar."""
    return Run(wanted, table, settings)


def parameters(settings: Settings) -> tuple[tuple[str, str], ...]:
    """How the market was made, in words that fit a page; long series by their hash."""
    found = []
    for one in fields(settings):
        value = getattr(settings, one.name)
        text = repr(tuple(value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
        found.append((one.name, text if len(text) <= LONGEST else f"sha256 {sha256(text.encode()).hexdigest()}"))
    return tuple(found)


def digest(wanted: Wanted, settings: Settings) -> str:
    """SHA-256 of what is tried out and how the market is made, but for `looks_at_all`, which changes nothing."""
    parts = (wanted.portfolio, wanted.policy, wanted.reference, wanted.limits, wanted.execution, wanted.split)
    texts = [codec.dumps(part) for part in parts if part is not None]
    texts += [repr(wanted.tax), *(f"{name}={text}" for name, text in parameters(settings) if name != "looks_at_all")]
    return sha256("\n".join(texts).encode()).hexdigest()


def _world(wanted: Wanted, table: PriceTable, settings: Settings) -> World:
    money = wanted.portfolio.numeraire
    used = only_wanted(wanted, table)
    if not isinstance(settings.gas_wei, int):
        if len(settings.gas_wei) != table.bars:
            raise ConfigError(f"gas prices for {len(settings.gas_wei)} bars, and the table has {table.bars}")
        settings = replace(settings, gas_wei=tuple(settings.gas_wei)[table.bars - used.bars :])
    if settings.flows and settings.flows_in == IN_NUMERAIRE and all(asset.token != money for asset in wanted.portfolio.assets):
        raise ConfigError(f"--flow: {money.symbol} is no asset of the portfolio", "let it come and go pro rata: --flows-in pro-rata")
    world = World(wanted, used, settings, Wallet({}, {}))
    world.go_to(0)
    world.wallet.balances = at_targets(world)
    world.hold = dict(world.wallet.balances)
    return world


def _count(found: dict[str, int], why: str, times: int = 1) -> None:
    if times:
        found[why] = found.get(why, 0) + times


def _rebalances(world: World, fills: list[Fill]) -> tuple[Rebalanced, ...]:
    """Swaps with the gas of the approvals before them."""
    found, gas = [], Fraction(0)
    for fill in fills:
        gas += fill.gas
        if fill.swap:
            time_s = int(world.table.times_s[fill.bar])
            found.append(Rebalanced(fill.bar, time_s, fill.turnover, fill.fees, fill.impact, gas, fill.succeeded))
            gas = Fraction(0)
    return tuple(found)


def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
