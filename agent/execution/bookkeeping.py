"""Double-entry ledger: entries of final transactions, openings, valuations, hourly prices, and the
wallet's last day before a new store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.accounting import entries
from agent.accounting.entries import (
    EntryPrices,
    SettledTransaction,
    quantize,
)
from agent.errors import Refused, Retryable
from agent.execution.settlement import (
    originating_step,
    realised_legs,
    review_time_s,
)
from agent.execution.step_context import StepReaders
from agent.layers.memories import ENTRIES, PAYMENTS, READINGS, Principal
from agent.layers.questions import BY_PLACE, outside_raw, unknown_value_reason
from agent.model import (
    Entry,
    EntryKind,
    History,
    Intent,
    IntentKind,
    IntentState,
    Limits,
    Plan,
    Portfolio,
    Rebalance,
    StepInput,
    Valuation,
    ValuedHolding,
)
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes
from agent.ports import Grant
from agent.reference import ReferencePrices, confirmed_prices, reference_prices
from agent.store.prices import AllocationStore, PriceStore
from agent.store.store import Store
from agent.units import NATIVE, PIPS


@dataclass(frozen=True, slots=True)
class AuditedEntry:
    """A transaction's recorded entry, and the entry derived from its receipt and step."""

    intent: Intent
    entered: Entry | None
    derived: Entry

    @property
    def differs(self) -> bool:
        """True if the recorded entry differs from the derived one."""
        return self.entered is not None and self.entered != self.derived


def update_ledger(
    store: Store, step: StepInput, changed: Collection[int] = frozenset(), force: bool = False
) -> None:
    """Post final transactions, enter opening balances, and record a valuation.

    A valuation is recorded once an hour, after each block of `changed` (settle_mined), and with
    `force`.
    """
    for intent in store.ledger.intents_without_entry():
        store.ledger.enter(intent, _posted_entry(store, intent, step))
    prices = entry_prices(step.portfolio, reference_prices(step))
    present = valuation(step, prices)
    if present is None:
        return
    portfolio = step.portfolio
    store.ledger.record_token_names(
        [*(asset.token for asset in portfolio.assets), *portfolio.hubs],
        portfolio.numeraire,
        portfolio.wrapped_native,
    )
    places = _holdings_by_place(step, prices)
    opened: tuple[tuple[str, str], ...] = ()
    if not store.ledger.has_places(places):
        opened = store.ledger.open_places(step.snapshot, places)
        # A holding missing from the ledger must not look like a profit.
        if not store.ledger.has_places(places):
            return
    store.ledger.enter_payments(entry for payments in PAYMENTS for entry in payments(step, prices))
    store.valuations.record(present, force or bool(opened), changed)


def valuation_of_step(store: Store, step: StepInput) -> Valuation | None:
    """Return the value of a recorded step that the ledger has no valuation of; None if the ledger
    cannot explain it yet: an unknown price or balance, a new holding, or an unwritten flow.
    """
    prices = entry_prices(step.portfolio, reference_prices(step))
    if any(flow.id == 0 for flow in step.history.cash_flows.unexplained):
        return None
    if not store.ledger.has_places(_holdings_by_place(step, prices)):
        return None
    return valuation(step, prices)


def _posted_entry(store: Store, intent: Intent, present: StepInput) -> Entry:
    counted = store.ledger.counted(intent.id)
    return derive_entry(store, intent, present, counted, store.ledger.principal)


def audit_entries(store: Store, present: StepInput) -> tuple[AuditedEntry, ...]:
    """Return every recorded entry with the one derived from journal and receipts, in chain
    order.
    """
    recorded = {entry.id: entry for entry in store.ledger.entered()}
    audited: list[AuditedEntry] = []
    openings = [entry for entry in store.ledger.entries() if entry.kind is EntryKind.OPENING]

    def principal(position: str) -> dict[str, int]:
        sums = entries.account_balances([*openings, *(entry.derived for entry in audited)])
        return {
            token: raw
            for (account, token), raw in sums.items()
            if account == f"{entries.LP}:{position}"
        }

    for intent in store.ledger.enterable_intents():
        counted = store.ledger.counted(intent.id)
        derived = derive_entry(store, intent, present, counted, principal)
        audited.append(AuditedEntry(intent, recorded.get(intent.id), derived))
    return tuple(audited)


def derive_entry(
    store: Store,
    intent: Intent,
    present: StepInput,
    counted: frozenset[str],
    principal: Principal,
) -> Entry:
    """Return the entry of a final transaction at the reference prices of its step, or of `present`
    if that step is unreadable. `principal` returns the net amounts provided to a position.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to enter")
    basis = originating_step(store.steps, intent) or present
    grant, owner = store.journal.grant(intent.id), present.snapshot.owner
    prices, coin = (
        entry_prices(basis.portfolio, reference_prices(basis)),
        basis.portfolio.wrapped_native,
    )
    moved = dict(receipt.net(owner)) if receipt.status == 1 else {}
    if wei := intent.coins(owner, coin):
        moved[NATIVE] = moved.get(NATIVE, 0) + wei
    chain_s = basis.snapshot.head.timestamp_s
    by_hand = store.steps.by_hand(intent.id) if grant.plan is None else _is_manual(grant.plan)
    change = SettledTransaction(
        intent.id,
        receipt.block_number,
        chain_s,
        receipt.tx_hash,
        intent.note,
        moved,
        receipt.gas_cost_wei,
        by_hand,
    )
    if intent.kind is IntentKind.PAYOUT:
        return entries.payout_entry(change, prices, counted)
    if (entry_of := ENTRIES.get(intent.kind)) is not None and receipt.status == 1:
        return entry_of(grant, change, prices, counted, basis, receipt, principal)
    kind = EntryKind.WRAP if intent.kind is IntentKind.UNWRAP else EntryKind.TRADE
    return entries.trade_entry(change, prices, counted, _fees(grant, intent, counted), kind)


def valuation(step: StepInput, prices: EntryPrices) -> Valuation | None:
    """Return the value of all holdings of the ledger at the step's block; None while a balance, a
    price, a position or an account is unknown.
    """
    if unknown_value_reason(step):
        return None
    balances = balance_changes.balances_of(step.snapshot)
    targets = {asset.token.address: asset.target_bps for asset in step.effective_assets}
    if any(token not in balances or prices.of(token) is None for token in targets):
        return None
    try:
        outside = outside_raw(step, prices.by_token, READINGS)
    except Refused:
        return None
    reserved = _reserved(step.portfolio, step.limits, balances)
    valued = []
    readings = {
        token: reading for read in READINGS.values() for token, reading in read(step).items()
    }
    for token in (*targets, NATIVE):
        price = prices.of(token) or Fraction(0)
        valued.append(
            ValuedHolding(
                token,
                balances[token],
                outside.get(token, 0),
                price,
                targets.get(token, 0),
                reserved.get(token, 0),
                readings.get(token),
            )
        )
    value = sum((holding.total_raw * holding.price for holding in valued), Fraction(0))
    return Valuation(
        step.snapshot.head.number, step.snapshot.head.timestamp_s, quantize(value), tuple(valued)
    )


def _reserved(portfolio: Portfolio, limits: Limits, balances: Mapping[str, int]) -> dict[str, int]:
    """Return the wallet's unmanaged base units: reserves, and native coin unless it is an asset.
    The reserve of a native asset is taken from native coin first.
    """
    reserved = {
        asset.token.address: min(balances[asset.token.address], asset.reserve_raw)
        for asset in portfolio.assets
    }
    native = next((asset for asset in portfolio.assets if asset.native), None)
    if native is None:
        return reserved | {NATIVE: balances[NATIVE]}
    raw, token = native_coin.reserved_raw(limits, native), native.token.address
    return reserved | {
        NATIVE: min(balances[NATIVE], raw),
        token: min(balances[token], max(0, raw - balances[NATIVE])),
    }


def _holdings_by_place(
    step: StepInput, prices: EntryPrices
) -> dict[tuple[str, str], tuple[int, Fraction | None]]:
    """Return base units and value of every asset and the native coin, by (place, token); the place
    is a position's name, or "" for the wallet.
    """
    balances = balance_changes.balances_of(step.snapshot)
    holdings = {
        ("", token): balances[token]
        for token in (*(asset.token.address for asset in step.portfolio.assets), NATIVE)
    }
    for by_place in BY_PLACE:
        holdings |= by_place(step, prices.by_token)
    priced = {}
    for (place, token), raw in holdings.items():
        price = prices.of(token)
        priced[place, token] = (raw, None if price is None else quantize(raw * price))
    return priced


def _fees(grant: Grant, intent: Intent, counted: frozenset[str]) -> dict[str, int]:
    """Return the pool fees of all legs by input token, base units rounded up, from the receipt's
    amounts or else the planned ones.
    """
    if grant.plan is None or intent.receipt is None or intent.receipt.status != 1 or not counted:
        return {}
    fees: dict[str, int] = {}
    for leg, done in zip(grant.plan.legs, realised_legs(grant.plan, intent.receipt), strict=True):
        raw = leg.amount_in_raw if done.amount_in_raw is None else done.amount_in_raw
        fees[leg.token_in] = fees.get(leg.token_in, 0) - (-raw * leg.fee_pips // PIPS)
    return {token: raw for token, raw in fees.items() if raw}


def _is_manual(plan: Plan) -> bool:
    return isinstance(plan.decision, Rebalance) and plan.decision.by_hand


def entry_prices(portfolio: Portfolio, references: ReferencePrices) -> EntryPrices:
    """Return the reference prices at which a step's entries are valued."""
    return EntryPrices(references.by_token, portfolio.wrapped_native)


# --- Entries of transactions that are not final yet: the annual gain limit must count their gains
# too.


_MINED = (IntentState.MINED, IntentState.FINAL, IntentState.REVERTED)


def pending_entries(store: Store, present: StepInput) -> tuple[Entry, ...]:
    """Return one entry per nonce that is not final: from the receipt if there is one, else from the
    plan, without gas, which would lower the gain. Among replacements at a nonce, the mined
    transaction counts, else the first. `present` replaces an unreadable step.
    """
    by_nonce: dict[int, Intent] = {}
    for intent in store.ledger.unsettled():
        known = by_nonce.get(intent.tx.nonce)
        if known is None or (intent.state in _MINED and known.state not in _MINED):
            by_nonce[intent.tx.nonce] = intent
    pending = []
    for intent in by_nonce.values():
        if intent.receipt is not None:
            pending.append(_posted_entry(store, intent, present))
        elif (planned := _planned_entry(store, intent, present)) is not None:
            pending.append(planned)
    return tuple(pending)


def _planned_entry(store: Store, intent: Intent, present: StepInput) -> Entry | None:
    """Return the entry that the plan of an unmined transaction predicts; None without a plan."""
    plan = store.journal.grant(intent.id).plan
    if plan is None:
        return None
    basis = originating_step(store.steps, intent) or present
    head, moved = basis.snapshot.head, plan.wallet_changes()
    change = SettledTransaction(
        intent.id, head.number, head.timestamp_s, intent.tx_hash or "", intent.note, moved, 0
    )
    return entries.trade_entry(
        change, entry_prices(basis.portfolio, reference_prices(basis)), {*moved, NATIVE}, {}
    )


# --- Records of chosen weights and hourly reference prices.


def record_allocation(history: History, allocations: AllocationStore) -> None:
    """Record the weights that this step chose, so that a restart uses them again."""
    chosen = history.allocation
    if chosen is not None and chosen != allocations.newest():
        allocations.record(chosen)


def record_hourly_prices(readers: StepReaders, step: StepInput, prices: PriceStore) -> None:
    """Record reference prices in the first cycle of each hour with confirmed prices: the price
    history of triggers, allocators and the ledger.

    If policy.confirm_blocks is set, the preceding blocks are read for this once an hour. If that
    fails, the next cycle retries; the cycle itself never fails because of it.
    """
    at_s, numeraire = review_time_s(step.snapshot), step.portfolio.numeraire.address
    if prices.has(numeraire, at_s):
        return
    past, blocks = step.snapshot.past, step.policy.confirm_blocks
    if len(past) < blocks:
        try:
            past = readers.reader.past(step.snapshot.head, blocks)
        except (Refused, Retryable):
            return
    points = confirmed_prices(step, past, at_s)
    if points:
        prices.record(numeraire, points)
