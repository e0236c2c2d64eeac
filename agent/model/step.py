"""Inputs of one step: StepInput, and the request that starts the step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.model.history import History
from agent.model.layers import LayerConfig, LayerProgress, LayerRequest, LayerState
from agent.model.limits import Limits
from agent.model.market import ScreenedToken, Snapshot
from agent.model.parts import T, part_of, with_part
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
    """What the steps of this cycle have done, and what they have found impossible, so far."""

    spend_caps: tuple[tuple[str, int], ...] = ()
    """Maximum base units by token that legs may take from the wallet: the amounts approved in this
    cycle.
    """
    spent_gas_wei: int = 0
    """Gas paid for these approvals. agent/policy/native_coin.py adds it back to the native balance,
    so that the plan keeps the amounts that were approved.
    """
    spot_hold_reason: str = ""
    """Reason why the spot portfolio trades only exits in this proposal, because guards refused its
    plan. Empty: no restriction.
    """
    direct_route_tokens: tuple[str, ...] = ()
    """Tokens whose exits were refused in this cycle on a route through another token."""
    layers: tuple[LayerProgress, ...] = ()
    """Progress of each layer in this cycle."""

    def layer(self, part_type: type[T]) -> T:
        """Return the part of a layer."""
        return part_of(self.layers, part_type)

    @property
    def continue_reason(self) -> str:
        """Reason why the rest of this cycle's rebalance goes on whatever the bands say; empty if
        it does not.
        """
        return next((part.continue_reason for part in self.layers if part.continue_reason), "")


@dataclass(frozen=True, slots=True)
class EffectiveTargets:
    """Targets that a step trades to, where they differ from the owner's."""

    effective_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, after allocator, strategies, orders, hedges and exclusions; empty if they
    are the owner's.
    """
    reasons: tuple[str, ...] = ()
    """Reasons why the targets differ from the config."""
    quarantined_tokens: tuple[ScreenedToken, ...] = ()
    """Tokens that are not traded; the remaining assets have targets."""


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Parts of the portfolio that a step leaves alone."""

    reason: str = ""
    """Reason why an unexplained deposit above portfolio.max_live_value is excluded. Empty: none is
    excluded, or the amount was included again for an exit.
    """
    raw_by_token: tuple[tuple[str, int], ...] = ()
    """Amount of that deposit, base units by token."""
    exits_only_reason: str = ""
    """Reason why assets without a price are left out of this portfolio, so that only exits may be
    decided. Empty: no asset is left out.
    """


NO_PROGRESS = StepProgress()
OWNER_TARGETS = EffectiveTargets()
NOTHING_EXCLUDED = Exclusions()


@dataclass(frozen=True, slots=True)
class StepInput:
    """All inputs of one step. Equal inputs give equal decisions and plans.

    `portfolio` has the owner's targets, `effective_assets` the ones that the step trades to. A
    recorded step is read by `loads` (agent/codec.py), decided by `decide` (agent/policy/decide.py) and
    planned by `propose_rebalance` (agent/planning/proposals.py), without a chain or a store.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    history: History
    progress: StepProgress = NO_PROGRESS
    targets: EffectiveTargets = OWNER_TARGETS
    exclusions: Exclusions = NOTHING_EXCLUDED
    blocked_exits: tuple[BlockedExit, ...] = ()
    """Triggered exits that cannot be carried out now. Their assets are skipped."""
    layer_configs: tuple[LayerConfig, ...] = ()
    """Settings of the layers that are on."""

    def layer(self, part_type: type[T]) -> T:
        """Return the state of a layer."""
        return self.history.layer(part_type)

    def with_layer(self, state: LayerState) -> StepInput:
        """Return the step with this state of a layer."""
        layers = with_part(self.history.layers, state)
        return replace(self, history=replace(self.history, layers=layers))

    def config(self, part_type: type[T]) -> T:
        """Return the settings of a layer."""
        return part_of(self.layer_configs, part_type)

    def with_config(self, config: LayerConfig) -> StepInput:
        """Return the step with these settings of a layer."""
        return replace(self, layer_configs=with_part(self.layer_configs, config))

    @property
    def divides_wallet(self) -> bool:
        """True if parts of the wallet have targets, triggers and cooldowns of their own."""
        return any(config.divides_wallet for config in self.layer_configs)

    @property
    def acts_beside_spot(self) -> bool:
        """True if a layer may act although the spot portfolio holds or its plan is refused."""
        return any(config.acts_beside_spot for config in self.layer_configs)

    def with_progress(self, part: LayerProgress) -> StepInput:
        """Return the step with this progress of a layer."""
        layers = with_part(self.progress.layers, part)
        return replace(self, progress=replace(self.progress, layers=layers))

    @property
    def effective_assets(self) -> tuple[Asset, ...]:
        """Assets with their effective targets."""
        if not self.targets.effective_bps:
            return self.portfolio.assets
        bps_by_token = dict(self.targets.effective_bps)
        return tuple(
            replace(asset, target_bps=bps_by_token[asset.token.address])
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
    """Request to invest the new deposits `deposits` (token, base units) in the underweight assets.

    `purchase_id` is the id of a purchase under way, or "".
    """

    deposits: tuple[tuple[str, int], ...]
    purchase_id: str = ""


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
class ManualAction:
    """An action without a plan, such as a payout or a revocation; `command` is the command that
    runs it.
    """

    command: str


PlanRequest = (
    AgentCycle
    | Swap
    | SwapAtPrice
    | Invest
    | RaiseForWithdrawal
    | Unwrap
    | SellEverything
    | SellEntireBalance
    | LayerRequest
)
"""Requests that lead to a plan."""


def names_amount(request: PlanRequest) -> bool:
    """True if the request repeated trades its amount again, unlike one that names targets."""
    if isinstance(request, LayerRequest):
        return request.names_amount
    return isinstance(request, Swap | SwapAtPrice | Unwrap)


StepRequest = PlanRequest | ManualAction
