"""Step input from snapshot, config and the store's memory, built identically live, on paper and in
a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from agent.layers.futures.policy.hedges import apply_hedges
from agent.model import (
    Allocation,
    CapitalSplit,
    CashMemory,
    ExpectedBalances,
    LedgerBalance,
    Portfolio,
    PricePoint,
    ScreenedToken,
    SignalAnswer,
    StepInput,
    StrategyLedger,
    TaxState,
)
from agent.policy import quarantine
from agent.policy.cash_flows import balance_changes, cash_limit, transfers
from agent.policy.orders.exits import apply_orders
from agent.policy.risk import apply_measured_risk
from agent.policy.signals import apply_futures_targets
from agent.policy.strategies import accounting, netting
from agent.policy.strategies.capital import target_capital_shares
from agent.policy.targets import allocation_history_s, apply_allocation, with_targets
from agent.units import BPS, NATIVE, decimal_text, format_percent, largest_remainder


@dataclass(frozen=True, slots=True)
class StrategyMemory:
    """The store's memory of strategies.

    `trades` are the steps of unbooked swaps, by intent id; `choices` are the newest weights chosen
    by allocators, by strategy.
    """

    ledger: StrategyLedger
    trades: Mapping[str, StepInput]
    choices: tuple[tuple[str, Allocation], ...]


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The store's data at a step's block, except the budgets in its history. `untradable` are
    tokens to quarantine.
    """

    prices: tuple[PricePoint, ...]
    allocation: Allocation | None
    balances: ExpectedBalances
    ledger: tuple[LedgerBalance, ...]
    strategies: StrategyMemory | None = None
    tax: TaxState | None = None
    untradable: tuple[ScreenedToken, ...] = ()
    signals: tuple[SignalAnswer, ...] = ()
    cash: CashMemory | None = None


# --- Weights of the strategies, each and combined: the portfolio's targets while several share the
# wallet.


def choose_strategy_weights(step: StepInput) -> StepInput:
    """Return the step with the weights chosen by the strategies' allocators, each as for a whole
    portfolio, and the choices.
    """
    split, books = step.split, step.history.sleeves
    if (
        split is None
        or books is None
        or not any(strategy.allocator for strategy in split.strategies)
    ):
        return step
    last, strategies, lacking = dict(books.choices), [], []
    for one in split.strategies:
        if one.allocator is None:
            strategies.append(one)
            continue
        weights = dict(one.weights_bps)
        assets = tuple(
            replace(asset, target_bps=weights.get(asset.token.address, 0))
            for asset in step.portfolio.assets
        )
        portfolio = replace(step.portfolio, assets=assets, weights=one.allocator)
        answers = tuple(signal for signal in step.history.signals if signal.owner == one.name)
        history = replace(step.history, allocation=last.get(one.name), unchosen="", signals=answers)
        own = replace(
            step,
            portfolio=portfolio,
            targets=replace(step.targets, effective_bps=()),
            history=history,
        )
        step_input = apply_allocation(own)
        if step_input.history.unchosen:
            lacking.append(f"strategy {one.name} has no weights: {step_input.history.unchosen}")
        if step_input.history.allocation is not None:
            last[one.name] = step_input.history.allocation
        strategies.append(
            replace(
                one,
                weights_bps=tuple(
                    (asset.token.address, asset.target_bps) for asset in step_input.effective_assets
                ),
                futures_bps=_chosen_futures(step_input) or one.futures_bps,
            )
        )
    chosen_books = replace(books, choices=tuple(last.items()), unchosen="; ".join(lacking))
    return replace(
        step,
        split=replace(split, strategies=tuple(strategies)),
        history=replace(step.history, sleeves=chosen_books),
    )


def _chosen_futures(found: StepInput) -> tuple[tuple[str, int], ...]:
    """Return the futures weights of an allocation; empty if it has none."""
    return () if found.history.allocation is None else found.history.allocation.futures_bps


def strategy_history_needed(
    split: CapitalSplit | None, last: Mapping[str, Allocation], portfolio: Portfolio, now_s: int
) -> tuple[tuple[int, int], ...]:
    """Return (seconds, step in seconds) of recorded prices that due choices need; `last` are the
    earlier choices by strategy.
    """
    found = []
    for strategy in () if split is None else split.strategies:
        if strategy.allocator is not None:
            whole = replace(portfolio, weights=strategy.allocator)
            found.append(
                (
                    allocation_history_s(whole, last.get(strategy.name), now_s),
                    strategy.allocator.step_s,
                )
            )
    return tuple((back_s, step_s) for back_s, step_s in found if back_s)


def combine_strategy_targets(step: StepInput) -> StepInput:
    """Return the step with targets that combine the strategies' weights by capital share, and an
    explanation among its `wishes`.
    """
    step = choose_strategy_weights(step)
    split, books = step.split, step.history.sleeves
    if split is None:
        return step
    shares = {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    if books is not None and not books.fault:
        shares = target_capital_shares(split, books.named)
    assets = step.portfolio.assets
    parts = [
        sum(
            (
                shares[one.name] * dict(one.weights_bps).get(asset.token.address, 0)
                for one in split.strategies
            ),
            Fraction(0),
        )
        for asset in assets
    ]
    targets = {
        asset.token.address: bps
        for asset, bps in zip(assets, largest_remainder(parts), strict=True)
    }
    notes = (
        "targets are those of the strategies together: "
        f"{', '.join(f'{name} {format_percent(share)}' for name, share in shares.items())}"
    )
    return with_targets(step, targets, notes)


# --- The steps from a snapshot to the complete input.


InputStep = Callable[[StepInput], StepInput]
TARGET_ADJUSTMENTS: tuple[InputStep, ...] = (
    apply_allocation,
    combine_strategy_targets,
    apply_futures_targets,
    apply_orders,
    apply_measured_risk,
)
"""Target adjustments in order: allocator, strategies, futures targets of signals or strategies,
orders, and the measured risk of a zone. Each reads `step.history` and returns the step with its
targets and the reason in `wishes`.
"""


def apply_effective_targets(step: StepInput) -> StepInput:
    """Return the step with its effective targets. Applied before quarantine, so that quarantined
    tokens never get a target.
    """
    for change in TARGET_ADJUSTMENTS:
        step = change(step)
    return step


def input_steps(memory: StepMemory) -> tuple[InputStep, ...]:
    """Return the steps from a snapshot with its config and budgets to the complete input, in
    order.
    """
    return (
        hold_blocked_futures,
        partial(add_memory, memory=memory),
        partial(reconcile_ledger, books=memory.balances, stands=memory.ledger),
        partial(balance_changes.apply_balance_changes, books=memory.balances),
        partial(cash_limit.reserve_unused_cash, memory=memory.cash, balances=memory.balances),
        transfers.reserve_withdrawals,
        # before strategies, because no strategy owns an unexplained increase
        cash_limit.exclude_unexplained_rises,
        partial(add_strategy_books, memory=memory.strategies, balances=memory.balances),
        apply_effective_targets,
        # after targets, so that a quarantined token gets no weight
        quarantine.quarantine_silent_assets,
        partial(quarantine.quarantine_tokens, found=memory.untradable),
        apply_hedges,  # last, because the hedged value is a share of the remaining assets
    )


def assemble_input(bare: StepInput, memory: StepMemory) -> StepInput:
    """Return the complete input of a step: `bare`, which has snapshot, config and budgets, after
    each of `input_steps`.
    """
    step = bare
    for add in input_steps(memory):
        step = add(step)
    return step


def hold_blocked_futures(step: StepInput) -> StepInput:
    """Return the step with futures held while the venue refuses orders by the agent's key."""
    blocked = step.snapshot.futures_blocked
    if step.futures is None or not blocked:
        return step
    return replace(
        step, progress=replace(step.progress, futures_held=f"futures: no order, {blocked}")
    )


def add_memory(step: StepInput, memory: StepMemory) -> StepInput:
    """Return the step with recorded prices, the last chosen weights, the answers of signals, and
    the inputs of taxable gains.
    """
    return replace(
        step,
        history=replace(
            step.history,
            prices=memory.prices,
            allocation=memory.allocation,
            tax=memory.tax,
            signals=memory.signals,
        ),
    )


def add_strategy_books(
    step: StepInput,
    memory: StrategyMemory | None,
    balances: ExpectedBalances,
    owner_agrees: bool = False,
) -> StepInput:
    """Return the step with the strategy books at its block, before any quarantine; unchanged with a
    single strategy. With `owner_agrees`, books that differ from wallet or config are reconciled.
    """
    if step.split is None or memory is None:
        return step
    if owner_agrees:
        bring = accounting.apply_configured_split
    else:
        bring = accounting.update_books
    fresh = balance_changes.unexplained(step, balances)
    books = bring(
        step,
        memory.ledger,
        lambda intent: memory.trades.get(intent.id),
        netting.strategy_adjustments,
        fresh,
    )
    return replace(
        step, history=replace(step.history, sleeves=replace(books, choices=memory.choices))
    )


# --- Differences between ledger and chain, by token.


REMEDY = (
    "find the entry with trimtab books check, or restart from the chain's balances with trimtab"
    " books open"
)


def reconcile_ledger(
    step: StepInput, books: ExpectedBalances, stands: Iterable[LedgerBalance]
) -> StepInput:
    """Return the step with ledger differences in its history.

    An unexplained change without a record is a flow, not a difference. A snapshot that cannot be
    compared with expected balances is not compared with the ledger either.
    """
    if not balance_changes.is_comparable(step.snapshot, books):
        return step
    unwritten = {
        token: delta
        for token, (delta, _) in balance_changes.differences(step.snapshot, books).items()
    }
    sure = balance_changes.balances_of(step.snapshot)
    counted = {asset.token.address for asset in step.portfolio.assets} | {NATIVE}
    wrong = []
    for stand in stands:
        expected = stand.raw + unwritten.get(stand.token, 0)
        if stand.token in counted and stand.token in sure and sure[stand.token] != expected:
            expected_text, has = (
                _amount(step, stand.token, raw) for raw in (expected, sure[stand.token])
            )
            wrong.append(
                f"{balance_changes.token_label(step, stand.token)}: {expected_text} by the ledger,"
                f" {has} on the chain"
            )
    if not wrong:
        return step
    message = (
        f"ledger and chain disagree at block {step.snapshot.head.number}: {'; '.join(wrong)};"
        f" {REMEDY}"
    )
    return replace(step, history=replace(step.history, books=message))


def _amount(step: StepInput, token: str, raw: int) -> str:
    decimals = 18 if token == NATIVE else step.portfolio.token(token).decimals
    return decimal_text(raw, decimals)
