"""Inputs of one step: StepInput, and the request that starts the step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.model.futures import AccountAction, FuturesPolicy
from agent.model.history import History
from agent.model.layers import LayerConfig, LayerState, T, part_of, with_part
from agent.model.limits import Limits
from agent.model.market import ScreenedToken, Snapshot
from agent.model.plan import LimitOrder
from agent.model.portfolio import (
    Asset,
    BlockedExit,
    ExecutionConfig,
    Policy,
    Portfolio,
    ReferenceConfig,
)


@dataclass(frozen=True, slots=True)
class StepProgress:
    """What this step has done, and what it has found impossible, so far."""

    spend_caps: tuple[tuple[str, int], ...] = ()
    """Maximum base units by token that legs may take from the wallet: the amounts approved in this
    step.
    """
    spent_gas_wei: int = 0
    """Gas of these approvals, added to the native balance in agent/policy/native_coin.py, so that
    the approvals can be used.
    """
    spot_held: str = ""
    """Reason why the spot portfolio trades only exits in this proposal, because guards refused its
    plan. Empty: no restriction.
    """
    direct: tuple[str, ...] = ()
    """Tokens whose exits were refused in this step on a route through another token."""
    acted: bool = False
    """True once this step has moved liquidity; share bands then no longer block the remaining
    actions.
    """
    left_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or reverted in this step; their liquidity stays."""
    reduced_markets: tuple[str, ...] = ()
    """Futures markets in which this step has sent orders; a reduction requested by the owner sends
    at most one order per market.
    """
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Final sizes, by futures market, of this step's reduction; empty if none is in progress."""
    order_parts: tuple[tuple[str, int], ...] = ()
    """Divisors, by futures market, of reductions whose simulation reverted in this step."""
    futures_held: str = ""
    """Reason why the futures layer sends nothing in this proposal: no order is possible, or guards
    refused its plan. Empty: it may send.
    """
    after_hedge: bool = False
    """True once this step has opened a hedge; its rebalance then continues regardless of bands."""


@dataclass(frozen=True, slots=True)
class EffectiveTargets:
    """Targets that a step trades to, where they differ from the owner's."""

    effective_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, after allocator, strategies, orders, hedges and exclusions; empty if they
    are the owner's.
    """
    reasons: tuple[str, ...] = ()
    """Reasons why the targets differ from the config."""
    unhedged_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, before the adjustment for open hedges; empty without a hedge."""
    quarantine: tuple[ScreenedToken, ...] = ()
    """Tokens that are not traded; the remaining assets have targets."""


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Parts of the portfolio that a step leaves alone."""

    reason: str = ""
    """Reason why an unexplained deposit above portfolio.max_live_value is excluded. Empty: none is
    excluded, or the amount was included again for an exit.
    """
    raw: tuple[tuple[str, int], ...] = ()
    """Amount of that deposit, base units by token."""
    exits_only: str = ""
    """Missing prices of the assets left out of this portfolio: only exits may be decided. Empty: no
    asset is left out.
    """


NO_PROGRESS, OWN_TARGETS, NOTHING_EXCLUDED = StepProgress(), EffectiveTargets(), Exclusions()


@dataclass(frozen=True, slots=True)
class StepInput:
    """All inputs of one step. Equal inputs give equal decisions and plans.

    `portfolio` has the owner's targets, `effective_assets` the ones that the step trades to.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    history: History
    progress: StepProgress = NO_PROGRESS
    targets: EffectiveTargets = OWN_TARGETS
    excluded: Exclusions = NOTHING_EXCLUDED
    stuck: tuple[BlockedExit, ...] = ()
    """Triggered exits that cannot be carried out now. Their assets are skipped."""
    layers: tuple[LayerConfig, ...] = ()
    """Settings of the layers that are on."""
    futures: FuturesPolicy | None = None
    """Targets and limits of the futures layer; None: no futures."""

    def layer(self, kind: type[T]) -> T:
        """Return the state of a layer."""
        return self.history.layer(kind)

    def with_layer(self, state: LayerState) -> StepInput:
        """Return the step with this state of a layer."""
        layers = with_part(self.history.layers, state)
        return replace(self, history=replace(self.history, layers=layers))

    def config(self, kind: type[T]) -> T:
        """Return the settings of a layer."""
        return part_of(self.layers, kind)

    def with_config(self, config: LayerConfig) -> StepInput:
        """Return the step with these settings of a layer."""
        return replace(self, layers=with_part(self.layers, config))

    @property
    def divides_wallet(self) -> bool:
        """True if parts of the wallet have targets, triggers and cooldowns of their own."""
        return any(config.divides_wallet for config in self.layers)

    @property
    def collateral(self) -> str:
        """Address of the margin account's collateral; empty without futures."""
        return "" if self.futures is None else self.futures.collateral

    @property
    def effective_assets(self) -> tuple[Asset, ...]:
        """Assets with their effective targets."""
        if not self.targets.effective_bps:
            return self.portfolio.assets
        targets = dict(self.targets.effective_bps)
        return tuple(
            replace(asset, target_bps=targets[asset.token.address])
            for asset in self.portfolio.assets
        )


# --- Requests that start a step. A plan can be repeated from StepInput and request.


@dataclass(frozen=True, slots=True)
class AgentCycle:
    """A cycle of the agent: open limit `orders` first, then its strategy."""

    orders: tuple[LimitOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """One manual swap; the amount is in base units of `token_in`."""

    token_in: str
    token_out: str
    amount_in_raw: int


@dataclass(frozen=True, slots=True)
class SwapAtPrice:
    """One manual swap at a limit price."""

    order: LimitOrder


@dataclass(frozen=True, slots=True)
class Invest:
    """Request to invest the new deposits `came` (token, base units) in the underweight assets.

    `before` is the id of a purchase under way, or "".
    """

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """Request to raise the shortfall of `token` for a withdrawal."""

    token: str


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Request to unwrap `raw` base units to native coin for a withdrawal."""

    raw: int


@dataclass(frozen=True, slots=True)
class SellEverything:
    """Request to sell everything for the numeraire, for the shutdown."""


@dataclass(frozen=True, slots=True)
class SellEntireBalance:
    """Request to sell the whole balance of a `token` removed from the config."""

    token: str


@dataclass(frozen=True, slots=True)
class MoveMargin:
    """Request to deposit or withdraw margin, or to change a delegate."""

    action: AccountAction


@dataclass(frozen=True, slots=True)
class Deleverage:
    """Request to reduce all futures positions by the same share, or only that of the market
    `symbol` (empty: all), until the leverage is at most `leverage_bps`. Without a leverage the
    positions are closed.
    """

    leverage_bps: int | None = None
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class OpenHedge:
    """Request to short `ratio_bps` of the amount by which `token` exceeds its target, instead of
    selling it.
    """

    token: str
    ratio_bps: int


@dataclass(frozen=True, slots=True)
class CloseHedge:
    """Request to close the hedge of a `token`."""

    token: str


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An action without a plan: a payout, or allowances revoked by the command named in `what`."""

    what: str


PlanRequest = (
    AgentCycle
    | Swap
    | SwapAtPrice
    | Invest
    | RaiseForWithdrawal
    | Unwrap
    | SellEverything
    | SellEntireBalance
    | MoveMargin
    | Deleverage
    | OpenHedge
    | CloseHedge
)
"""Requests that lead to a plan."""
StepRequest = PlanRequest | ManualAction
