"""Data behind reference prices and weights. Observations of V3 pools: report the length of their
price history, and raise its capacity after confirmation. Weights that the allocator would choose
now, with the data used, and its last choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents import fill
from agent.app.documents.plans import transaction_document
from agent.app.documents.positions import AllocationDocument, WeightedAssetDocument, WeightsDocument
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, Refused
from agent.execution.approvals import OwnerAction, send_by_command
from agent.execution.step_context import StepTransactor
from agent.layers.signals.policy import signal_requests
from agent.layers.signals.state import SignalState
from agent.layers.strategies.policy.inputs import step_of_strategy
from agent.layers.strategies.state import CapitalSplit, Strategy, with_allocator_keys
from agent.model import (
    Allocation,
    AllocationMethod,
    AllocationNeeds,
    AllocatorConfig,
    Asset,
    Pool,
    Portfolio,
    ReferenceConfig,
    Snapshot,
    StepInput,
    Verdict,
    part_of,
)
from agent.policy import target_changes, targets
from agent.ports import PreparedTransaction
from agent.reference import prices, reference_prices
from agent.units import decimal_text, value_text
from agent.weights.allocators import WeightBounds
from agent.weights.returns import Returns

if TYPE_CHECKING:
    from agent.app.documents.positions import (
        ObservationsDocument,
        PoolObservationsDocument,
        RaisedObservationsDocument,
    )


SLOT_GAS = 22_350
CALL_GAS = 45_000
"""Gas units per added observation (a storage word from zero, UniswapV3Pool), and for the call
itself.
"""
MAX_ADDED_OBSERVATIONS = 500
"""Maximum number of observations per transaction, below the 2^24 gas limit of a transaction
(EIP-7825) with a margin.
"""
ORACLE_DECISION = "oracle"


def observations(agent: Agent) -> PoolObservationsDocument:
    """Return every tradable V3 pool: its observation capacity, the capacity needed for the window,
    and the validity of its TWAP.
    """
    step = agent.step_input()
    pools = [pool for pool in step.snapshot.pools if pool.keeps_observations]
    return {
        "block": step.snapshot.head.number,
        "window_s": step.reference.twap_window_s,
        "enough": _required_observations(step.snapshot, step.reference),
        "pools": [
            _pool_document(step.snapshot, step.portfolio, step.reference, pool) for pool in pools
        ],
    }


def raise_observations(
    agent: Agent,
    address: str,
    requested_capacity: int,
    *,
    send: bool = False,
    confirm: Callable[[RaisedObservationsDocument], bool] = never_confirm,
    progress: Progress = ignore_progress,
) -> RaisedObservationsDocument:
    """Raise the observation capacity of a pinned pool to `requested_capacity`: return the document,
    and after confirmation (`send`) send the transaction. Raises ConfigError for a pool that is not
    traded, or an invalid increase; Refused for a pool that is not pinned, and by gas limits, kill
    switch and signer like every transaction.
    """
    step = agent.step_input()
    pool = _find_pool(step.snapshot, _parse_pool_address(address))
    increase_document = _increase_document(step, pool, requested_capacity)
    if increase_document["increase"] == 0 or not send:
        return increase_document
    rejection = prices.pin_rejection(step.snapshot, step.reference, pool)
    if rejection:
        raise Refused(
            f"{pool.address}: {rejection}",
            (Verdict("allowlist", rejection, "all pinned", False),),
            "trimtab trust",
        )
    with wiring.open_transactor(agent.context, never_confirm, progress) as transactor:
        transactor.executor.reconcile()
        step = agent.step_input()
        pool = _find_pool(step.snapshot, pool.address)
        increase_document = _increase_document(step, pool, requested_capacity)
        if increase_document["increase"] == 0:
            return increase_document
        return _send_increase(
            agent, transactor, step, pool, requested_capacity, increase_document, confirm
        )


def _send_increase(
    agent: Agent,
    transactor: StepTransactor,
    step: StepInput,
    pool: Pool,
    capacity: int,
    increase_document: RaisedObservationsDocument,
    confirm: Callable[[RaisedObservationsDocument], bool],
) -> RaisedObservationsDocument:
    """Send the transaction through journal, signer and executor, like any other; return the document
    with its outcome.
    """
    shown_document = increase_document

    def confirm_cost(prepared_transaction: PreparedTransaction) -> bool:
        nonlocal shown_document
        most_native = decimal_text(prepared_transaction.tx.max_gas_cost_wei, 18)
        shown_document = {**increase_document, "most_native": most_native}
        return confirm({**shown_document})

    outcome, intents = send_by_command(
        agent.context.readers,
        agent.context.store,
        transactor,
        step,
        OwnerAction(
            ORACLE_DECISION,
            lambda step: transactor.composer.oracle_transaction(step, pool.address, capacity),
            f"{pool.address} keeps {capacity} price observations",
        ),
        confirm_cost,
    )
    return {
        **shown_document,
        "outcome": outcome,
        "transactions": [transaction_document(intent) for intent in intents],
    }


def _increase_document(
    step: StepInput, pool: Pool, requested_capacity: int
) -> RaisedObservationsDocument:
    next_capacity = (pool.observation_counts or (0, 0))[1]
    increase = max(0, requested_capacity - next_capacity)
    if not 1 <= requested_capacity <= prices.MAX_OBSERVATIONS:
        raise ConfigError(
            f"--to: {requested_capacity} is not between 1 and {prices.MAX_OBSERVATIONS}",
            f"{_required_observations(step.snapshot, step.reference)} are enough for the window",
        )
    if increase > MAX_ADDED_OBSERVATIONS:
        raise ConfigError(
            f"--to: from {next_capacity} to {requested_capacity} in one transaction exceeds the gas limit",
            f"raise it in steps: --to {next_capacity + MAX_ADDED_OBSERVATIONS}",
        )
    gas_units = CALL_GAS + SLOT_GAS * increase if increase else 0
    head = step.snapshot.head
    gas_cost_wei = gas_units * step.snapshot.current_gas_price_wei
    native_price = reference_prices(step).reference_by_token.get(step.portfolio.wrapped_native)
    cost_text: str | None = None
    if native_price is not None:
        cost_value = gas_cost_wei * native_price.price
        cost_text = value_text(cost_value, step.portfolio.numeraire.decimals)
    return {
        **_pool_document(step.snapshot, step.portfolio, step.reference, pool),
        "block": head.number,
        "enough": _required_observations(step.snapshot, step.reference),
        "to": requested_capacity,
        "increase": increase,
        "gas_units": gas_units,
        "cost_native": decimal_text(gas_cost_wei, 18),
        "cost": cost_text,
        "most_native": None,
        "outcome": "planned" if increase else "hold",
        "transactions": [],
    }


def _parse_pool_address(address_text: str) -> str:
    try:
        return parse_address(address_text, "POOL")
    except ConfigError as error:
        raise ConfigError(error.message, "trimtab oracle lists the pools") from None


def _find_pool(snapshot: Snapshot, address: str) -> Pool:
    traded_pool = next(
        (pool for pool in snapshot.pools if pool.keeps_observations and pool.address == address),
        None,
    )
    if traded_pool is None:
        raise ConfigError(
            f"POOL: {address} is not a V3 pool of this portfolio", "trimtab oracle lists them"
        )
    return traded_pool


def _pool_document(
    snapshot: Snapshot, portfolio: Portfolio, reference: ReferenceConfig, pool: Pool
) -> ObservationsDocument:
    capacity, next_capacity = pool.observation_counts or (0, 0)
    rejection = prices.twap_rejection(snapshot, reference, pool)
    return {
        "pool": pool.address,
        "tokens": [portfolio.token(address).label for address in (pool.token0, pool.token1)],
        "fee_pips": pool.fee_pips,
        "observations": capacity,
        "observations_next": next_capacity,
        "sufficient": rejection == "",
        "why": rejection,
    }


def _required_observations(snapshot: Snapshot, reference: ReferenceConfig) -> int:
    return prices.required_observations(snapshot.head.chain_id, reference.twap_window_s)


def weights(
    agent: Agent,
    *,
    strategy: str = "",
    accept: Callable[[WeightsDocument], bool] | None = None,
) -> WeightsDocument:
    """Return the weights that the allocator would choose now, of the portfolio or of a strategy
    (empty: the only one with an allocator). Records no choice, except with `accept`: then it is
    made also if a return makes most of a variance or a weight moves by more than `max_change`,
    and it is recorded as shown if `accept` returns True for its document. Without it such a choice
    is `waiting` in the document, and `now` is None. Raises ConfigError if
    there is no such allocator, Refused if there is nothing to accept.
    """
    owner = _strategy_with_allocator(agent, strategy)
    step = agent.step_input()
    if owner is not None:
        step = step_of_strategy(step, owner, None)
    allocator = step.portfolio.allocator
    if allocator is None or allocator.method is AllocationMethod.FIXED:
        raise ConfigError(
            "portfolio.weights: the config has no allocator; targets are fixed",
            "see docs/weights.md",
        )
    owner_name = "" if owner is None else owner.name
    store = agent.context.store
    assets = step.portfolio.assets
    now_s = step.snapshot.trusted_time_s
    since_s = now_s - allocator.window_s - max(allocator.step_s, allocator.max_age_s)
    recorded_prices = store.prices.prices_between(
        agent.portfolio.numeraire.address, since_s, now_s, allocator.step_s
    )
    priced_step = replace(
        step, history=replace(step.history, prices=recorded_prices, allocation=None)
    )
    signal_answers = SignalState(
        agent.context.signal_host.answers(signal_requests(priced_step, {}))
    ).for_part(owner_name)
    allocator_inputs = replace(
        target_changes.allocator_inputs(priced_step.with_layer(signal_answers)),
        accepts_jumps=accept is not None,
    )
    last_allocation = store.allocations.newest(owner_name)
    valid_allocation = targets.valid_allocation(allocator, assets, last_allocation)
    returns: Returns | None = None
    weight_bounds: WeightBounds | None = None
    allocation_now: Allocation | None = None
    waiting_allocation: Allocation | None = None
    fault = ""
    try:
        weight_bounds = targets.bounds_of(allocator, assets)
        returns = targets.unrounded_weights(allocator, assets, allocator_inputs)[1].returns
        allocation_now = targets.choose_allocation(
            allocator, assets, allocator_inputs, last_allocation
        )
    except Refused as refusal:
        refusal.remedy = with_allocator_keys(refusal.remedy, owner_name)
        if accept is not None:
            raise
        fault = str(refusal)
        with suppress(Refused):
            waiting_allocation = targets.choose_allocation(
                allocator, assets, replace(allocator_inputs, accepts_jumps=True), last_allocation
            )
    document: WeightsDocument = {
        "block": step.snapshot.head.number,
        "at_s": now_s,
        "kind": allocator.method.value,
        "strategy": owner_name,
        "due": targets.is_allocation_due(allocator, assets, last_allocation, now_s),
        "next_s": None if valid_allocation is None else valid_allocation.at_s + allocator.every_s,
        "chosen": _allocation_document(step.portfolio, valid_allocation),
        "now": _allocation_document(step.portfolio, allocation_now),
        "waiting": _allocation_document(step.portfolio, waiting_allocation),
        "fault": fault,
        "accepted": False,
        "turnover_bps": _turnover_bps(allocation_now or waiting_allocation, valid_allocation),
        "assets": _asset_documents(
            step.snapshot,
            allocator,
            weight_bounds,
            _Choices(valid_allocation, allocation_now, waiting_allocation),
            returns,
            assets,
        ),
        "correlations": _correlations(step.portfolio, returns),
        "target_reasons": list(step.targets.reasons),
    }
    if accept is not None and allocation_now is not None and accept(document):
        store.allocations.record(allocation_now, owner_name)
        document["accepted"] = True
    return document


@dataclass(frozen=True, slots=True)
class _Choices:
    """Choices of an allocator: the last that is valid, the one of now, and the one that waits for the
    owner.
    """

    valid: Allocation | None
    now: Allocation | None
    waiting: Allocation | None


def _strategy_with_allocator(agent: Agent, name: str) -> Strategy | None:
    """Return the strategy of that name, or the only one with an allocator; None without any."""
    strategy_by_name = {
        strategy.name: strategy
        for strategy in part_of(agent.context.layers, CapitalSplit).strategies
        if strategy.allocator is not None
    }
    if not name and len(strategy_by_name) <= 1:
        return next(iter(strategy_by_name.values()), None)
    if name not in strategy_by_name:
        fault = f"{name!r} is not a strategy with an allocator"
        remedy = f"choose from {', '.join(strategy_by_name)}"
        if not strategy_by_name:
            remedy = "omit it: no strategy has an allocator"
        elif not name:
            fault = "several strategies have an allocator"
        raise ConfigError(f"--strategy: {fault}", remedy)
    return strategy_by_name[name]


def _allocation_document(
    portfolio: Portfolio, allocation: Allocation | None
) -> AllocationDocument | None:
    if allocation is None:
        return None
    weights_bps = {
        portfolio.token(token).label: weight_bps for token, weight_bps in allocation.weights_bps
    }
    return fill(AllocationDocument, allocation, weights_bps=weights_bps)


def _asset_documents(
    snapshot: Snapshot,
    allocator: AllocatorConfig,
    weight_bounds: WeightBounds | None,
    choices: _Choices,
    returns: Returns | None,
    assets: Sequence[Asset],
) -> list[WeightedAssetDocument]:
    volatility_by_token = (
        {} if returns is None else dict(zip(returns.tokens, returns.volatilities, strict=True))
    )
    limits_by_token = {}
    if weight_bounds is not None:
        for token, low_bps, high_bps in zip(
            weight_bounds.tokens, weight_bounds.low_bps, weight_bounds.high_bps, strict=True
        ):
            limits_by_token[token] = [low_bps, high_bps]
    supply_by_token = {}
    if allocator.method.needs is AllocationNeeds.SUPPLIES:
        supply_by_token = {
            token_supply.token: token_supply
            for token_supply in (*snapshot.supplies, *allocator.supplies)
        }
    asset_documents: list[WeightedAssetDocument] = []
    for asset in assets:
        address = asset.token.address
        supply = supply_by_token.get(asset.token.address)
        asset_documents.append(
            {
                "symbol": asset.token.label,
                "address": address,
                "fixed": address in allocator.fixed_tokens,
                "target_bps": asset.target_bps,
                "chosen_bps": _weight_bps(choices.valid, address),
                "now_bps": _weight_bps(choices.now, address),
                "waiting_bps": _weight_bps(choices.waiting, address),
                "limits_bps": limits_by_token.get(address),
                "volatility": f"{volatility_by_token[address]:.6f}"
                if address in volatility_by_token
                else None,
                "supply_raw": None if supply is None else str(supply.raw),
                "supply_source": None if supply is None else supply.source or "its contract",
            }
        )
    return asset_documents


def _weight_bps(allocation: Allocation | None, token: str) -> int | None:
    return None if allocation is None else allocation.weight_bps(token)


def _correlations(portfolio: Portfolio, returns: Returns | None) -> dict[str, str]:
    """Return the sample correlation of each pair "A/B"."""
    if returns is None:
        return {}
    labels = [portfolio.token(token).label for token in returns.tokens]
    index_pairs = combinations(range(len(labels)), 2)
    return {f"{labels[i]}/{labels[j]}": f"{returns.correlations[i, j]:.6f}" for i, j in index_pairs}


def _turnover_bps(
    new_allocation: Allocation | None, valid_allocation: Allocation | None
) -> int | None:
    """Return half of the sum of absolute weight changes, rounded up; None unless both choices
    exist.
    """
    if new_allocation is None or valid_allocation is None:
        return None
    return -(
        -sum(
            abs(weight_bps - valid_allocation.weight_bps(token))
            for token, weight_bps in new_allocation.weights_bps
        )
        // 2
    )
