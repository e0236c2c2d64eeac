"""The case that guards judge: input, plan and evidence, with measurements recomputed once for all
guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

from agent.errors import Refused
from agent.guards.replay import (
    Replay,
    SimulatedSwap,
    replay_legs,
)
from agent.layers.policy import build_guard_answers
from agent.layers.questions import value_outside_wallet
from agent.model import (
    Asset,
    Evidence,
    LayerGuardAnswers,
    LegPlace,
    Plan,
    Rebalance,
    StepInput,
    TopUp,
)
from agent.planning.approval_gas import approval_gas_units, calldata_sizes, worst_gas_wei
from agent.policy import native_coin
from agent.policy.cash_flows import purchases, transfers
from agent.reference import (
    PriceRange,
    ReferencePrices,
    disagreement_loss,
    price_inputs,
    price_ranges,
    reference_prices,
    spot_prices,
)
from agent.units import NATIVE, Token, decimal_text

K = TypeVar("K")


class MissingData(Exception):
    """An input of a guard is unknown; the message names it. The guard refuses."""


@dataclass(frozen=True, slots=True)
class GuardMeasurement:
    """Measurement of a guard: text with units, and whether it passed. `limit_text`, if set,
    replaces the text of the limit.
    """

    text: str
    passed: bool
    limit_text: str = ""


@dataclass(frozen=True)
class GuardCase:
    """Input of all guards. `prices` and `spot_prices` are in numeraire base units per token base
    unit, by token.

    `unpriced_reasons` says why each missing price is missing. `layer_answers` answers for the layer
    in which the plan acts.
    """

    step: StepInput
    plan: Plan
    evidence: Evidence
    prices: Mapping[str, Fraction]
    unpriced_reasons: Mapping[str, str]
    spot_prices: Mapping[str, Fraction]
    replay: Replay
    references: ReferencePrices
    layer_answers: LayerGuardAnswers

    @property
    def numeraire(self) -> Token:
        """The numeraire of the portfolio."""
        return self.step.portfolio.numeraire

    def label(self, address: str) -> str:
        """Return the symbol of a token of the portfolio, else its address."""
        token = self.step.portfolio.find_token(address)
        return address if token is None else token.label

    def amount_text(self, address: str, raw: int) -> str:
        """Return an amount of a token in coins, in base units if it is not of the portfolio."""
        token = self.step.portfolio.find_token(address)
        if token is None:
            return f"{raw} base units of {address}"
        return f"{decimal_text(raw, token.decimals)} {token.label}"

    def price(self, address: str) -> Fraction:
        """Return the reference price of a token; the native coin has the price of its wrapped
        token. Raises MissingData.
        """
        pricing_token = self.step.portfolio.pricing_token(address)
        price = self.prices.get(pricing_token)
        if price is None or price <= 0:
            raise MissingData(
                f"no reference price of {self.label(address)}:"
                f" {self.unpriced_reasons.get(pricing_token, 'not a token of the portfolio')}"
            )
        return price

    def price_range(self, address: str) -> PriceRange:
        """Return the lowest and highest price of a token by the sources that agree; of an exit the
        reference price alone. Raises MissingData.
        """
        price = self.price(address)
        range_by_token = {} if self.plan.is_exit else price_ranges(self.step)
        return range_by_token.get(self.step.portfolio.pricing_token(address), (price, price))

    def require_complete_replay(self) -> None:
        """Raise MissingData if a leg fails."""
        if self.replay.fault is not None:
            raise MissingData(self.replay.fault)

    def swaps(self) -> tuple[SimulatedSwap, ...]:
        """Return the simulated swaps. Raises MissingData if a leg fails."""
        self.require_complete_replay()
        return self.replay.swaps

    def is_required_by_layer(self) -> bool:
        """True if a limit of a layer requires the plan, so that neither cost nor size blocks it.
        Raises MissingData.
        """
        return measure_in_layer(self.layer_answers.is_required)

    def is_risk_reducing(self) -> bool:
        """True if the plan buys only the numeraire, recomputed from its legs and actions. Raises
        MissingData. Such a plan is an exit, a withdrawal of liquidity, a reduction of a
        layer, or gas money for one of these.
        """
        if self.plan.acts_in_layer:
            return self.layer_answers.only_reduces()
        if isinstance(self.plan.decision, TopUp):
            return not self.plan.layer_actions and self.turnover() == 0
        return self.is_sell_only() or self.layer_answers.only_withdraws()

    def needs_no_gas(self) -> bool:
        """True if the plan sends no transaction."""
        return self.layer_answers.needs_no_gas()

    def is_sell_only(self) -> bool:
        """True if decision and legs of the plan are an exit. Raises MissingData.

        An exit buys only the numeraire and the shortfalls of open withdrawals, and for a shortfall
        it sells no more than necessary.
        """
        if not self.plan.is_exit or self.plan.layer_actions:
            return False
        self.require_complete_replay()
        bought_tokens = {
            token for token in self.replay.tokens if self.replay.delta_raw(token) > 0
        } - {self.numeraire.address}
        if not bought_tokens or bought_tokens - self._shortfall_tokens():
            return not bought_tokens
        sold_value = sum(
            (
                max(0, -self.replay.delta_raw(token)) * self.price(token)
                for token in self.replay.tokens
            ),
            Fraction(0),
        )
        # no sale is smaller, so the last one may raise up to this much too much
        tolerated_excess = self.step.limits.min_trade or 0
        return sold_value <= self._justified_sale_value(bought_tokens) + tolerated_excess

    def judged_tokens(self, *, with_gas: bool = True) -> set[str] | None:
        """Return the tokens whose price sources may refuse the plan; None for all tokens. Raises
        MissingData. An exit depends on the tokens that it trades, the numeraire, and `with_gas` the
        native coin. A layer's reduction may depend on no token, because the venue's own index
        bounds it: in a crash, when TWAPs lag, it must still avert liquidation.
        """
        if not self.is_risk_reducing():
            return None
        if self.layer_answers.needs_no_spot_price():
            return set()
        portfolio = self.step.portfolio
        legs = self.plan.legs
        actions = self.plan.layer_actions
        return {
            portfolio.numeraire.address,
            *([portfolio.wrapped_native] if with_gas else []),
            *(
                portfolio.pricing_token(token)
                for leg in legs
                for token in (leg.token_in, leg.token_out)
            ),
            *(token for action in actions for token in (action.token0, action.token1)),
        }

    def counted_turnover(self) -> Fraction:
        """Return the turnover that counts against limits. Raises MissingData. For an exit this is
        the value of purchases other than of the numeraire; for a purchase or withdrawal, the value
        beyond the confirmed amount.
        """
        return max(Fraction(0), self._turnover_before_exemption() - self.largest_exempt_turnover())

    def exempt_turnover(self) -> Fraction:
        """Return the turnover that does not count against limits. Raises MissingData."""
        return min(self._turnover_before_exemption(), self.largest_exempt_turnover())

    def _turnover_before_exemption(self) -> Fraction:
        """Return the turnover before exemptions; for an exit only purchases other than
        of the numeraire. Raises MissingData.
        """
        if not self.plan.is_exit:
            return self.turnover()
        self.require_complete_replay()
        change_raw_by_token = {
            token: self.replay.delta_raw(token)
            for token in self.replay.tokens
            if token != self.numeraire.address
        }
        return sum(
            (
                change_raw * self.price(token)
                for token, change_raw in change_raw_by_token.items()
                if change_raw > 0
            ),
            Fraction(0),
        )

    def largest_exempt_turnover(self) -> Fraction:
        """Return the largest exempt turnover of a purchase or of a withdrawal's sales. Raises
        MissingData.
        """
        return self._withdrawal_allowance() if self.plan.is_exit else self._purchase_allowance

    @cached_property
    def _purchase_allowance(self) -> Fraction:
        """Largest exempt turnover of a purchase, recomputed."""
        decision = self.plan.decision
        if not isinstance(decision, Rebalance) or decision.exempt_turnover <= 0:
            return Fraction(0)
        return min(decision.exempt_turnover, purchases.turnover_allowance(self.step))

    def _withdrawal_allowance(self) -> Fraction:
        """Return the largest exempt turnover of an exit for open withdrawals, recomputed. Raises
        MissingData.
        """
        decision = self.plan.decision
        if not isinstance(decision, Rebalance) or decision.exempt_turnover <= 0:
            return Fraction(0)
        bought_tokens = {token for token in self.replay.tokens if self.replay.delta_raw(token) > 0}
        return min(
            decision.exempt_turnover,
            self._justified_sale_value(bought_tokens & self._shortfall_tokens()),
        )

    def _shortfall_tokens(self) -> set[str]:
        """Return the assets, except the numeraire, with a shortfall for open withdrawals."""
        claimed_tokens = {
            claim.payment.token for claim in self.step.history.cash_flows.pending_payments
        } - {self.numeraire.address}
        return {
            token
            for token in claimed_tokens
            if transfers.shortfall_raw(
                self.step.portfolio, self.step.limits, native_coin.held_balances(self.step), token
            )
            > 0
        }

    def _justified_sale_value(self, tokens: set[str]) -> Fraction:
        """Return the largest sale value that these shortfalls justify. Raises MissingData."""
        try:
            return sum(
                (transfers.gross_sale_value(self.step, token) for token in sorted(tokens)),
                Fraction(0),
            )
        except Refused as refusal:
            raise MissingData(refusal.message) from None

    def balance_raw(self, address: str) -> int:
        """Return the wallet's balance of a token or of native coin, in base units. Raises
        MissingData if it was not read.
        """
        if address == NATIVE:
            return self.step.snapshot.native_wei
        for holding in self.step.snapshot.holdings:
            if holding.token == address:
                return holding.raw
        raise MissingData(f"balance of {self.label(address)} was not read")

    def investable_raw(self, asset: Asset) -> int:
        """Return the spendable base units of an asset, at least zero. Raises MissingData."""
        return max(0, self.spendable_raw(asset))

    def spendable_raw(self, asset: Asset) -> int:
        """Return the base units of an asset above its reserve, negative if below; native and
        wrapped coin count together. Raises MissingData.
        """
        native_wei = self.balance_raw(NATIVE) if asset.includes_native else 0
        return (
            self.balance_raw(asset.token.address)
            + native_wei
            - native_coin.reserved_raw(self.step.limits, asset)
        )

    def require_known_day(self) -> None:
        """Raise MissingData if the wallet's last 24 h are unknown, so that no daily limit takes
        them for unused (T6). An exit ignores decreases of balances, so their missing prices do not
        block it.
        """
        history = self.step.history
        if history.budgets.unknown_reason and not (
            history.budgets.unknown_reason == history.budgets.unpriced_falls_reason
            and self.is_risk_reducing()
        ):
            raise MissingData(history.budgets.unknown_reason)

    def portfolio_value(self) -> Fraction:
        """Return the value of investable balances, and what layers have outside the wallet, at
        reference prices. Raises MissingData.
        """
        investable_value = sum(
            (
                self.investable_raw(asset) * self.price(asset.token.address)
                for asset in self.step.portfolio.assets
            ),
            Fraction(0),
        )
        return investable_value + self.value_outside_wallet()

    def blocked_value(self) -> Fraction:
        """Return the value of assets with blocked exits, which `portfolio_value` excludes. An asset
        without a price counts as zero.
        """
        return sum(
            (
                blocked_exit.excluded_raw * self.prices.get(blocked_exit.token, Fraction(0))
                for blocked_exit in self.step.blocked_exits
            ),
            Fraction(0),
        )

    def value_outside_wallet(self) -> Fraction:
        """Return the value of what layers have outside the wallet. Raises MissingData."""
        return measure_in_layer(lambda: value_outside_wallet(self.step, self.prices))

    def turnover(self) -> Fraction:
        """Return half the sum of absolute changes of wallet balances, in value. Raises
        MissingData.
        """
        self.require_complete_replay()
        gross_change_value = sum(
            (abs(self.replay.delta_raw(token)) * self.price(token) for token in self.replay.tokens),
            Fraction(0),
        )
        return gross_change_value / 2

    def trading_cost(self) -> Fraction:
        """Return the value given less the value received, at reference prices: fees, impact and
        skew. Raises MissingData.
        """
        self.require_complete_replay()
        return -sum(
            (self.replay.delta_raw(token) * self.price(token) for token in self.replay.tokens),
            Fraction(0),
        )

    def disagreement_loss(self) -> Fraction:
        """Return how much more the swaps cost at the worse of feed and TWAP for the wallet. Raises
        MissingData.
        """
        self.require_complete_replay()
        change_raw_by_token = {token: self.replay.delta_raw(token) for token in self.replay.tokens}
        return disagreement_loss(self.step, change_raw_by_token)

    def cost(self) -> Fraction:
        """Return the sum of trading cost, a layer's cost, and gas of plan and missing approvals.
        Raises MissingData.
        """
        expected_gas_wei = self.gas_units() * self.gas_price_wei() + self.data_fee_wei(
            self.gas_units()
        )
        gas_value = expected_gas_wei * self.price(self.step.portfolio.wrapped_native)
        return self.trading_cost() + measure_in_layer(self.layer_answers.cost) + gas_value

    def worst_cost(self) -> Fraction:
        """Return the worst-case cost, with each swap and action at its minimum, at the worse of
        feed and TWAP, and all gas burned. Raises MissingData.
        """
        self.require_complete_replay()
        flows_to_wallet = [flow for flow in self.replay.flows if flow.leg.sink is LegPlace.WALLET]
        slippage_value = sum(
            (
                max(0, flow.amount_out_raw - flow.leg.min_out_raw) * self.price(flow.leg.token_out)
                for flow in flows_to_wallet
            ),
            Fraction(0),
        )
        gas_value = self.worst_gas_wei() * self.price(self.step.portfolio.wrapped_native)
        swap_cost = self.trading_cost() + slippage_value + self.disagreement_loss()
        return swap_cost + measure_in_layer(self.layer_answers.worst_cost) + gas_value

    def gas_units(self) -> int:
        """Return the expected gas of the plan's transaction and of missing approvals."""
        return self.plan.gas_units + approval_gas_units(self.step, self.plan)

    def gas_price_wei(self) -> int:
        """Return the gas price: base fee plus priority fee, or the node's gas price on chains
        without EIP-1559.
        """
        return self.step.snapshot.current_gas_price_wei

    def worst_gas_wei(self) -> int:
        """Return the largest gas cost of the transactions. Raises MissingData if a rollup's data
        fee was not read.
        """
        self.data_fee_wei(self.gas_units())
        return worst_gas_wei(self.step, self.plan)

    def data_fee_wei(self, gas_units: int) -> int:
        """Return what the transactions are expected to pay now beyond their gas. Raises MissingData
        if it was not read.
        """
        snapshot = self.step.snapshot
        if unknown_reason := snapshot.data_fee_unknown_reason:
            raise MissingData(f"the rollup's data fee was not read ({unknown_reason})")
        if snapshot.data_fee is None or self.needs_no_gas():
            return 0
        return snapshot.expected_fee_beyond_gas_wei(
            gas_units, *calldata_sizes(self.step, self.plan)
        )


def build_guard_case(step: StepInput, plan: Plan, evidence: Evidence) -> GuardCase:
    """Return the case, with prices, legs and actions recomputed from the snapshot."""
    references = reference_prices(step)
    prices = references.price_by_token
    reason_by_unpriced_token = {
        unpriced_token.token: unpriced_token.why for unpriced_token in references.unpriced
    }
    replay = replay_legs(step.snapshot, plan, step.portfolio.wrapped_native)
    return GuardCase(
        step,
        plan,
        evidence,
        prices,
        reason_by_unpriced_token,
        spot_prices(price_inputs(step)),
        replay,
        references,
        build_guard_answers(step, plan),
    )


def measure_in_layer(measure: Callable[[], K]) -> K:
    """Return a measurement of a layer. Raises MissingData if an input of it is unknown."""
    try:
        return measure()
    except Refused as refusal:
        raise MissingData(refusal.message) from None
