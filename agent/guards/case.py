"""The guards' case: input, plan and evidence, with measurements that are recomputed once for all
guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, TypeVar

from agent.errors import Refused
from agent.guards.replay import (
    LpReplay,
    Replay,
    SimulatedAction,
    SimulatedSwap,
    replay_actions,
    replay_legs,
    worst_overpayment_share,
)
from agent.model import (
    LIMITS,
    Asset,
    Evidence,
    LegFunding,
    Limits,
    LimitSpec,
    LimitUnit,
    Plan,
    Provide,
    Rebalance,
    StepInput,
    TighterDirection,
    TopUp,
    Verdict,
)
from agent.planning.gas import approval_gas_units
from agent.policy import native_coin
from agent.policy.cash_flows import purchase, withdrawals
from agent.policy.liquidity import valuation
from agent.policy.liquidity.book import (
    LiquidityExposure,
    PositionBook,
    liquidity_limits,
    open_position_book,
)
from agent.policy.native_coin import GAS_MARGIN
from agent.reference import ReferencePrices, reference_prices, spot_prices
from agent.units import BPS, NATIVE, Token, ceil_int, decimal_text, value_text


class MissingData(Exception):
    """A guard's input is unknown; the message names it. The guard then refuses."""


@dataclass(frozen=True, slots=True)
class GuardMeasurement:
    """Result of a guard: text with units, and whether it is within the limit; `limit` replaces the
    config's text if set.
    """

    text: str
    passed: bool
    limit: str = ""


@dataclass(frozen=True)
class GuardCase:
    """Input of all guards. `prices` and `spots` are numeraire base units per token base unit, by
    token address.

    `unpriced` has the reason for each missing price. `lp` is the simulation of the plan's liquidity
    actions, or why there is none.
    """

    step: StepInput
    plan: Plan
    evidence: Evidence
    prices: Mapping[str, Fraction]
    unpriced: Mapping[str, str]
    spots: Mapping[str, Fraction]
    replay: Replay
    lp: LpReplay | str
    references: ReferencePrices

    @property
    def numeraire(self) -> Token:
        """The token that values are counted in."""
        return self.step.portfolio.numeraire

    def label(self, address: str) -> str:
        """Symbol of a token of the portfolio, else its address."""
        try:
            return self.step.portfolio.token(address).label
        except KeyError:
            return address

    def price(self, address: str) -> Fraction:
        """Return the reference price; the native coin has that of its wrapped token. Raises
        MissingData.
        """
        price = self.prices.get(
            self.step.portfolio.wrapped_native if address == NATIVE else address
        )
        if price is None or price <= 0:
            raise MissingData(
                f"no reference price of {self.label(address)}:"
                f" {self.unpriced.get(address, 'no token of the portfolio')}"
            )
        return price

    def runs(self) -> tuple[SimulatedSwap, ...]:
        """Return the simulated legs. Raises MissingData if one cannot run."""
        if self.replay.fault is not None:
            raise MissingData(self.replay.fault)
        return self.replay.runs

    def actions(self) -> tuple[SimulatedAction, ...]:
        """Return the recomputed liquidity actions; none for a plan of swaps. Raises MissingData if
        one cannot run.
        """
        if not self.plan.actions:
            return ()
        if isinstance(self.lp, str):
            raise MissingData(self.lp)
        if self.lp.fault is not None:
            raise MissingData(self.lp.fault)
        return self.lp.runs

    def loads(self) -> tuple[LiquidityExposure, LiquidityExposure]:
        """Return expected loss and value of liquidity before and after the plan's actions. Raises
        MissingData.
        """
        self.actions()
        if isinstance(self.lp, str):
            raise MissingData(self.lp)
        return self.book().load(), self.lp.after.load()

    def book(self) -> PositionBook:
        """Wallet and positions in the snapshot. Raises MissingData."""
        try:
            return open_position_book(self.step, self.prices)
        except Refused as why:
            raise MissingData(why.message) from None

    def is_exit(self) -> bool:
        """True if the plan only withdraws liquidity while a liquidity limit is exceeded: neither
        cost nor size blocks it.
        """
        return self._only_out() and not self.loads()[0].within(liquidity_limits(self.step.limits))

    def is_risk_reducing(self) -> bool:
        """True if the plan buys nothing but the numeraire, recomputed from its legs and actions.
        Raises MissingData.

        Such a plan is an exit, a withdrawal of liquidity, or gas money for either.
        """
        if isinstance(self.plan.decision, TopUp):
            return not self.plan.actions and self.turnover() == 0
        return self.is_sell_only() or self._only_out()

    def is_sell_only(self) -> bool:
        """True if the plan is an exit by its decision and by its legs. Raises MissingData.

        It may buy only the numeraire and the shortfall of open withdrawals, and sell for the latter
        at most what raising it takes.
        """
        if not self.plan.exits or self.plan.actions:
            return False
        self.runs()
        bought = {token for token in self.replay.tokens if self.replay.delta(token) > 0} - {
            self.numeraire.address
        }
        if not bought or bought - self._lacked():
            return not bought
        given = sum(
            (max(0, -self.replay.delta(token)) * self.price(token) for token in self.replay.tokens),
            Fraction(0),
        )
        return given <= self._gross(bought) + (
            self.step.limits.min_trade or 0
        )  # the last part of a raise is at least a trade

    def _only_out(self) -> bool:
        """True if the plan withdraws liquidity and does nothing else."""
        actions = self.plan.actions
        return (
            bool(actions)
            and not self.plan.legs
            and not any(isinstance(action, Provide) for action in actions)
        )

    def counted_turnover(self) -> Fraction:
        """Return the turnover that limits count. Raises MissingData.

        Of an exit that is the value bought besides the numeraire; of a purchase or a withdrawal,
        the value beyond the confirmed amount.
        """
        return max(Fraction(0), self._limited() - self.apart())

    def exempt_turnover(self) -> Fraction:
        """Return the turnover that `apart` exempts. Raises MissingData."""
        return min(self._limited(), self.apart())

    def _limited(self) -> Fraction:
        """Return the turnover that limits count; of an exit only purchases other than the
        numeraire. Raises MissingData.
        """
        if not self.plan.exits:
            return self.turnover()
        self.runs()
        bought = {
            token: self.replay.delta(token)
            for token in self.replay.tokens
            if token != self.numeraire.address
        }
        return sum(
            (raw * self.price(token) for token, raw in bought.items() if raw > 0), Fraction(0)
        )

    def apart(self) -> Fraction:
        """Return the most of a purchase, or of a withdrawal's sales, that turnover limits exempt.
        Raises MissingData.
        """
        return self._raised() if self.plan.exits else self._purchase

    @cached_property
    def _purchase(self) -> Fraction:
        """Return a purchase's exempt turnover, recomputed."""
        decision = self.plan.decision
        if not isinstance(decision, Rebalance) or decision.apart <= 0:
            return Fraction(0)
        return min(decision.apart, purchase.turnover_allowance(self.step))

    def _raised(self) -> Fraction:
        """Return the exempt turnover of an exit that raises open withdrawals, recomputed. Raises
        MissingData.
        """
        decision = self.plan.decision
        if not isinstance(decision, Rebalance) or decision.apart <= 0:
            return Fraction(0)
        bought = {token for token in self.replay.tokens if self.replay.delta(token) > 0}
        return min(decision.apart, self._gross(bought & self._lacked()))

    def _lacked(self) -> set[str]:
        """Return the assets besides the numeraire with a shortfall for open withdrawals."""
        claimed = {claim.payment.token for claim in self.step.history.claims} - {
            self.numeraire.address
        }
        return {token for token in claimed if withdrawals.shortfall_raw(self.step, token) > 0}

    def _gross(self, tokens: set[str]) -> Fraction:
        """Return the most that raising these tokens may sell, in value. Raises MissingData."""
        try:
            return sum(
                (withdrawals.gross_sale_value(self.step, token) for token in sorted(tokens)),
                Fraction(0),
            )
        except Refused as why:
            raise MissingData(why.message) from None

    def balance(self, address: str) -> int:
        """Wallet's balance of a token, or of native coin, in base units. Raises MissingData if it
        was not read.
        """
        if address == NATIVE:
            return self.step.snapshot.native_wei
        for holding in self.step.snapshot.holdings:
            if holding.token == address:
                return holding.raw
        raise MissingData(f"balance of {self.label(address)} was not read")

    def investable(self, asset: Asset) -> int:
        """Balance less reserve, base units, never below zero; of the native asset both forms, less
        the floor. Raises MissingData.
        """
        return max(0, self.spendable(asset))

    def spendable(self, asset: Asset) -> int:
        """Return the asset's base units above its reserve; negative if the reserve is not filled.
        Raises MissingData.
        """
        native_wei = self.balance(NATIVE) if asset.native else 0
        return (
            self.balance(asset.token.address)
            + native_wei
            - native_coin.reserved_raw(self.step, asset)
        )

    def require_known_day(self) -> None:
        """Raise MissingData while the wallet's last 24 h are unknown: no limit of a day starts
        empty (T6).
        """
        if self.step.history.unknown:
            raise MissingData(self.step.history.unknown)

    def total(self) -> Fraction:
        """Value of all investable balances and confirmed liquidity positions at reference prices.
        Raises MissingData.
        """
        free = sum(
            (
                self.investable(asset) * self.price(asset.token.address)
                for asset in self.step.portfolio.assets
            ),
            Fraction(0),
        )
        return free + self.lp_value()

    def blocked_value(self) -> Fraction:
        """Value of the assets whose exits are blocked, which the total leaves out. Raises
        MissingData.
        """
        return sum((one.raw * self.price(one.token) for one in self.step.stuck), Fraction(0))

    def lp_value(self) -> Fraction:
        """Value of all confirmed liquidity positions at reference prices. Raises MissingData."""
        try:
            return valuation.total_value(self.step, self.prices)
        except Refused as why:
            raise MissingData(why.message) from None

    def turnover(self) -> Fraction:
        """Half the sum of absolute changes of the wallet's balances in value. Raises
        MissingData.
        """
        self.runs()
        moved = sum(
            (abs(self.replay.delta(token)) * self.price(token) for token in self.replay.tokens),
            Fraction(0),
        )
        return moved / 2

    def trading_cost(self) -> Fraction:
        """Value given less value received at reference prices: fees, impact and skew in one. Raises
        MissingData.
        """
        self.runs()
        return -sum(
            (self.replay.delta(token) * self.price(token) for token in self.replay.tokens),
            Fraction(0),
        )

    def overpayment(self) -> Fraction:
        """Return the cost of the plan's provided liquidity above its value at reference prices.
        Raises MissingData.
        """
        provided = [run for run in self.actions() if isinstance(run.action, Provide)]
        try:
            return sum(
                (run.before.overpayment(run.action, run.amounts, run.after) for run in provided),
                Fraction(0),
            )
        except Refused as why:
            raise MissingData(why.message) from None

    def cost(self) -> Fraction:
        """Trading cost, what liquidity is overpaid by, and the gas of the plan and of approvals
        that it still needs. Raises MissingData.
        """
        gas = (
            self.gas_units() * self.gas_price_wei() * self.price(self.step.portfolio.wrapped_native)
        )
        return self.trading_cost() + self.overpayment() + gas

    def worst_cost(self) -> Fraction:
        """Return the worst-case cost: each swap and provision at its minimum, and all gas burned.
        Raises MissingData.
        """
        self.runs()
        ends = [flow for flow in self.replay.flows if flow.leg.sink is LegFunding.WALLET]
        short = sum(
            (
                max(0, flow.amount_out_raw - flow.leg.min_out_raw) * self.price(flow.leg.token_out)
                for flow in ends
            ),
            Fraction(0),
        )
        provided = [run for run in self.actions() if isinstance(run.action, Provide)]
        dear = sum(
            (run.value * worst_overpayment_share(run, self.step.limits) for run in provided),
            Fraction(0),
        )
        gas = self.worst_gas_wei() * self.price(self.step.portfolio.wrapped_native)
        return self.trading_cost() + short + max(self.overpayment(), dear) + gas

    def gas_units(self) -> int:
        """Expected gas of the plan's transaction, and of the approvals that have to be mined before
        it.
        """
        return self.plan.gas_units + approval_gas_units(self.step, self.plan)

    def gas_price_wei(self) -> int:
        """Price of a unit of gas now: base fee and priority fee, or the node's gas price on chains
        without EIP-1559.
        """
        snapshot = self.step.snapshot
        base = snapshot.head.base_fee_wei
        return snapshot.gas_price_wei if base is None else base + snapshot.priority_fee_wei

    def worst_gas_wei(self) -> int:
        """Return the most gas money that the transactions may burn: gas limits at two base fees and
        the priority fee, under the ceiling. They are sent like that: a gas limit is the estimate
        plus a quarter, the fee cap never above limits.gas_price.
        """
        return ceil_int(self.gas_units() * GAS_MARGIN) * native_coin.worst_price_wei(self.step)


def build_guard_case(step: StepInput, plan: Plan, evidence: Evidence) -> GuardCase:
    """Recomputes prices and the plan's legs from the snapshot."""
    references = reference_prices(step)
    prices = references.by_token
    unpriced = {lacking.token: lacking.why for lacking in references.unpriced}
    legs = replay_legs(step.snapshot, plan, step.portfolio.wrapped_native)
    return GuardCase(
        step,
        plan,
        evidence,
        prices,
        unpriced,
        spot_prices(step),
        legs,
        _actions(step, plan, prices),
        references,
    )


def _actions(step: StepInput, plan: Plan, prices: Mapping[str, Fraction]) -> LpReplay | str:
    try:
        return replay_actions(open_position_book(step, prices), plan.actions)
    except Refused as why:
        return why.message


# --- Text of measurements in verdicts: short, with unit, never rounded to the safe side of a limit.


OFF = "off"


def format_bps(limit: int) -> str:
    """Limit in basis points: 100 -> "100 bps"."""
    return f"{limit} bps"


def format_ratio(share: Fraction) -> str:
    """Exact share as basis points, rounded up at two places, so that a breach never reads like the
    limit.
    """
    return f"{decimal_text(ceil_int(share * BPS * 100), 2)} bps"


def format_money(value: Fraction, numeraire: Token) -> str:
    """Value in numeraire base units as whole coins."""
    return f"{value_text(value, numeraire.decimals)} {numeraire.label}"


def format_gwei(wei: int) -> str:
    """Gas price."""
    return f"{decimal_text(wei, 9)} gwei"


def format_native(wei: int) -> str:
    """Amount of the native coin in whole coins."""
    return f"{decimal_text(wei, 18)} native"


def format_seconds(number: int) -> str:
    """Duration."""
    return f"{number} s"


# --- A guard: its name, limit, measurement and remedy.


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Guard(Generic[T]):
    """A guard: `limit` reads the limit from the input (None: off), `words` formats it, `measure`
    compares the case with it. `remedy` follows the words "do this:". A guard that `judges_market`
    checks only the pools and tokens of a plan: its refusal does not concern another exit.
    """

    name: str
    limit: Callable[[StepInput], T | None]
    words: Callable[[T, StepInput], str]
    measure: Callable[[GuardCase, T], GuardMeasurement]
    remedy: str
    judges_market: bool = False

    def judge(self, case: GuardCase) -> Verdict:
        """Return the verdict; missing data refuse, a limit that is off passes."""
        limit = self.limit(case.step)
        if limit is None:
            return Verdict(self.name, "not measured", OFF, True)
        try:
            measured = self.measure(case, limit)
        except MissingData as why:
            measured = GuardMeasurement(f"unknown: {why}", False)
        return Verdict(
            self.name,
            measured.text,
            measured.limit or self.words(limit, case.step),
            measured.passed,
        )


def always(
    name: str,
    rule: str,
    measure: Callable[[GuardCase], GuardMeasurement],
    remedy: str,
    *,
    judges_market: bool = False,
) -> Guard[bool]:
    """Return a guard that no config switches off; `rule` is the text of its limit."""
    return Guard(
        name,
        lambda _: True,
        lambda _, __: rule,
        lambda case, _: measure(case),
        remedy,
        judges_market,
    )


def limited(
    key: str,
    limit: Callable[[Limits], T | None],
    measure: Callable[[GuardCase, T], GuardMeasurement],
    remedy: str,
    *,
    judges_market: bool = False,
) -> Guard[T]:
    """Return a guard for a key of [limits]; the key's row in LIMITS decides how the limit is
    formatted.
    """
    spec = LIMITS[key]
    return Guard(
        key,
        lambda step: limit(step.limits),
        lambda value, step: _words(spec, value, step),
        measure,
        remedy,
        judges_market,
    )


def _words(spec: LimitSpec, limit: Any, step: StepInput) -> str:
    """A limit with its unit; "at least" where more is tighter."""
    match spec.unit:
        case LimitUnit.SHARE:
            text = format_bps(limit)
        case LimitUnit.DURATION:
            text = format_seconds(limit)
        case LimitUnit.GAS_PRICE:
            text = format_gwei(limit)
        case LimitUnit.NATIVE:
            text = format_native(limit)
        case LimitUnit.COINS:
            text = format_money(limit, step.portfolio.numeraire)
        case LimitUnit.SWITCH:
            text = "on"
    return f"at least {text}" if spec.tighter is TighterDirection.MORE else text
