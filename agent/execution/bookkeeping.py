"""Double-entry ledger: entries of final transactions, their audit, openings and valuations; and
records of chosen weights and hourly prices.
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
from agent.errors import READ_FAILURES, Refused
from agent.execution.settlement import (
    originating_step,
    realised_legs,
)
from agent.execution.step_context import StepReaders
from agent.layers import questions
from agent.layers.memories import BOOKINGS, NetAmountsReader, bookings_of
from agent.layers.questions import raw_outside_wallet, unknown_value_reason
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
from agent.policy.cash_flows.transfers import unbooked_payment_reason
from agent.ports import Grant
from agent.reference import ReferencePrices, confirmed_prices, reference_prices
from agent.store.prices import AllocationStore, PriceStore
from agent.store.store import Store
from agent.units import NATIVE, PIPS


@dataclass(frozen=True, slots=True)
class AuditedEntry:
    """A transaction's recorded entry, and the entry derived from its receipt and step. Without a
    readable step its prices are unknown: only what the wallet paid and got is compared.
    """

    intent: Intent
    recorded_entry: Entry | None
    derived_entry: Entry
    is_step_readable: bool = True

    @property
    def differs(self) -> bool:
        """True if the recorded entry differs from the derived one."""
        if self.recorded_entry is None:
            return False
        if self.is_step_readable:
            return self.recorded_entry != self.derived_entry
        return _wallet_raw(self.recorded_entry) != _wallet_raw(self.derived_entry)

    @property
    def sound_entry(self) -> Entry:
        """The derived entry, or the recorded one without a readable step."""
        if self.is_step_readable or self.recorded_entry is None:
            return self.derived_entry
        return self.recorded_entry


def _wallet_raw(entry: Entry) -> dict[str, int]:
    """Return the base units by token that an entry moves into the wallet."""
    return {
        token: raw
        for (account, token), raw in entries.account_balances([entry]).items()
        if account == entries.WALLET
    }


def update_ledger(
    store: Store,
    step: StepInput,
    changed_blocks: Collection[int] = frozenset(),
    is_forced: bool = False,
) -> None:
    """Post final transactions, enter opening balances, and record a valuation.

    A valuation is recorded once an hour, after each block of `changed_blocks` (settle_mined), and
    with `is_forced`.
    """
    for intent in store.ledger.intents_without_entry():
        store.ledger.record_entry(intent, _entry_to_post(store, intent, step))
    prices = entry_prices(step.portfolio, reference_prices(step))
    new_valuation = valuation(step, prices)
    if new_valuation is None:
        return
    portfolio = step.portfolio
    store.ledger.record_ledger_tokens(
        [*(asset.token for asset in portfolio.assets), *portfolio.hubs],
        portfolio.numeraire,
        portfolio.wrapped_native,
    )
    holdings_by_place = _holdings_by_place(step, prices)
    opened_places: tuple[tuple[str, str], ...] = ()
    if not store.ledger.has_places(holdings_by_place):
        opened_places = store.ledger.open_places(step.snapshot, holdings_by_place)
        # A holding missing from the ledger must not look like a profit.
        if not store.ledger.has_places(holdings_by_place):
            return
    store.ledger.record_offchain_entries(
        entry for layer in BOOKINGS for entry in layer.payment_entries(step, prices)
    )
    store.valuations.record(new_valuation, is_forced or bool(opened_places), changed_blocks)


def valuation_of_step(store: Store, step: StepInput) -> Valuation | None:
    """Return the valuation of a recorded step for which the ledger has none; None if the ledger
    cannot explain it yet: an unknown price or balance, a new holding, or an unwritten flow.
    """
    prices = entry_prices(step.portfolio, reference_prices(step))
    if any(flow.id == 0 for flow in step.history.cash_flows.unexplained_transfers):
        return None
    if not store.ledger.has_places(_holdings_by_place(step, prices)):
        return None
    return valuation(step, prices)


def current_valuations(store: Store, step: StepInput | None) -> tuple[Valuation, ...]:
    """Return the recorded valuations and that of the newest step, so that value, profit and lots
    are of the newest cycle although valuations are recorded once an hour.
    """
    recorded_valuations = store.valuations.between()
    newest_valuation = (
        None if not recorded_valuations else later_valuation(store, step, recorded_valuations[-1])
    )
    return (
        recorded_valuations
        if newest_valuation is None
        else (*recorded_valuations, newest_valuation)
    )


def later_valuation(
    store: Store, step: StepInput | None, last_valuation: Valuation
) -> Valuation | None:
    """Return the valuation of a step; None if it is not later than `last_valuation`."""
    if step is None or step.snapshot.head.number <= last_valuation.block:
        return None
    step_valuation = valuation_of_step(store, step)
    return (
        None
        if step_valuation is None or step_valuation.chain_s < last_valuation.chain_s
        else step_valuation
    )


def _entry_to_post(store: Store, intent: Intent, current_step: StepInput) -> Entry:
    ledger_tokens = store.ledger.counted_tokens(intent.id)
    return derive_entry(store, intent, current_step, ledger_tokens, store.ledger.principal)


def audit_entries(store: Store, current_step: StepInput) -> tuple[AuditedEntry, ...]:
    """Return every recorded entry with the one derived from journal and receipts, in chain
    order.
    """
    recorded_entry_by_id = {entry.id: entry for entry in store.ledger.intent_entries()}
    audited_entries: list[AuditedEntry] = []
    opening_entries = [entry for entry in store.ledger.entries() if entry.kind is EntryKind.OPENING]

    def derived_principal(position: str) -> dict[str, int]:
        balance_by_account = entries.account_balances(
            [*opening_entries, *(entry.sound_entry for entry in audited_entries)]
        )
        return {
            token: raw
            for (account, token), raw in balance_by_account.items()
            if account == f"{entries.LP}:{position}"
        }

    for intent in store.ledger.enterable_intents():
        ledger_tokens = store.ledger.counted_tokens(intent.id)
        derived_entry = derive_entry(store, intent, current_step, ledger_tokens, derived_principal)
        audited_entries.append(
            AuditedEntry(
                intent,
                recorded_entry_by_id.get(intent.id),
                derived_entry,
                originating_step(store.steps, intent) is not None,
            )
        )
    return tuple(audited_entries)


def derive_entry(
    store: Store,
    intent: Intent,
    current_step: StepInput,
    ledger_tokens: frozenset[str],
    read_principal: NetAmountsReader,
) -> Entry:
    """Return the entry of a final transaction, dated by its block, at the reference prices of its
    step, or of `current_step` if that step is unreadable. A receipt without the block's time has
    that of the step. `read_principal` returns the net amounts provided to a position.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to enter")
    step = originating_step(store.steps, intent) or current_step
    grant = store.journal.grant(intent.id)
    owner = current_step.snapshot.owner
    prices = entry_prices(step.portfolio, reference_prices(step))
    wrapped_native = step.portfolio.wrapped_native
    change_by_token = dict(receipt.net_transfers(owner)) if receipt.status == 1 else {}
    if native_change_wei := intent.native_change_wei(owner, wrapped_native):
        change_by_token[NATIVE] = change_by_token.get(NATIVE, 0) + native_change_wei
    chain_s = receipt.block_time_s or step.snapshot.head.timestamp_s
    is_manual = store.steps.is_by_hand(intent.id) if grant.plan is None else _is_manual(grant.plan)
    transaction = SettledTransaction(
        intent.id,
        receipt.block_number,
        chain_s,
        receipt.tx_hash,
        intent.note,
        change_by_token,
        receipt.gas_cost_wei,
        is_manual,
    )
    if intent.kind is IntentKind.PAYOUT:
        return entries.payout_entry(transaction, prices, ledger_tokens)
    if (layer_bookings := bookings_of(intent.kind)) is not None and receipt.status == 1:
        return layer_bookings.entry(
            grant, transaction, prices, ledger_tokens, step, receipt, read_principal
        )
    entry_kind = EntryKind.WRAP if intent.kind is IntentKind.UNWRAP else EntryKind.TRADE
    return entries.trade_entry(
        transaction, prices, ledger_tokens, _pool_fees(grant, intent, ledger_tokens), entry_kind
    )


def valuation(step: StepInput, prices: EntryPrices) -> Valuation | None:
    """Return the value of all holdings of the ledger at the step's block; None while a balance, a
    price, a position or an account is unknown, or a payment may be mined and is not booked.
    """
    if unknown_value_reason(step) or unbooked_payment_reason(step):
        return None
    balance_by_token = balance_changes.balances_of(step.snapshot)
    target_bps_by_token = {asset.token.address: asset.target_bps for asset in step.effective_assets}
    if any(
        token not in balance_by_token or prices.of(token) is None for token in target_bps_by_token
    ):
        return None
    try:
        off_wallet_raw = raw_outside_wallet(
            step, prices.by_token, {layer.account_place for layer in BOOKINGS}
        )
    except Refused:
        return None
    reserved_raw_by_token = _reserved_by_token(step.portfolio, step.limits, balance_by_token)
    valued_holdings = []
    margin_reading_by_token = {
        token: reading
        for layer in BOOKINGS
        for token, reading in layer.margin_readings(step).items()
    }
    for token in (*target_bps_by_token, NATIVE):
        price = prices.of(token) or Fraction(0)
        valued_holdings.append(
            ValuedHolding(
                token,
                balance_by_token[token],
                off_wallet_raw.get(token, 0),
                price,
                target_bps_by_token.get(token, 0),
                reserved_raw_by_token.get(token, 0),
                margin_reading_by_token.get(token),
            )
        )
    total_value = sum(
        (holding.total_raw * holding.price for holding in valued_holdings), Fraction(0)
    )
    return Valuation(
        step.snapshot.head.number,
        step.snapshot.head.timestamp_s,
        quantize(total_value),
        tuple(valued_holdings),
    )


def _reserved_by_token(
    portfolio: Portfolio, limits: Limits, balance_by_token: Mapping[str, int]
) -> dict[str, int]:
    """Return the wallet's unmanaged base units: reserves, and native coin unless it is an asset.
    The reserve of a native asset is taken from native coin first.
    """
    reserved_raw_by_token = {
        asset.token.address: min(balance_by_token[asset.token.address], asset.reserve_raw)
        for asset in portfolio.assets
    }
    native_asset = next((asset for asset in portfolio.assets if asset.includes_native), None)
    if native_asset is None:
        return reserved_raw_by_token | {NATIVE: balance_by_token[NATIVE]}
    native_reserve_raw = native_coin.reserved_raw(limits, native_asset)
    native_token = native_asset.token.address
    return reserved_raw_by_token | {
        NATIVE: min(balance_by_token[NATIVE], native_reserve_raw),
        native_token: min(
            balance_by_token[native_token], max(0, native_reserve_raw - balance_by_token[NATIVE])
        ),
    }


def _holdings_by_place(
    step: StepInput, prices: EntryPrices
) -> dict[tuple[str, str], tuple[int, Fraction | None]]:
    """Return base units and value of every asset and the native coin, by (place, token); the place
    is a position's name, or "" for the wallet.
    """
    balance_by_token = balance_changes.balances_of(step.snapshot)
    raw_by_place = {
        ("", token): balance_by_token[token]
        for token in (*(asset.token.address for asset in step.portfolio.assets), NATIVE)
    }
    for layer in questions.LAYERS:
        raw_by_place |= layer.holdings.ledger_raw(step, prices.by_token)
    amounts_and_values = {}
    for (place, token), raw in raw_by_place.items():
        price = prices.of(token)
        amounts_and_values[place, token] = (raw, None if price is None else quantize(raw * price))
    return amounts_and_values


def _pool_fees(grant: Grant, intent: Intent, ledger_tokens: frozenset[str]) -> dict[str, int]:
    """Return the pool fees of all legs by input token, base units rounded up, from the receipt's
    amounts or else the planned ones.
    """
    if (
        grant.plan is None
        or intent.receipt is None
        or intent.receipt.status != 1
        or not ledger_tokens
    ):
        return {}
    fee_raw_by_token: dict[str, int] = {}
    for execution in realised_legs(grant.plan, intent.receipt):
        leg = execution.leg
        amount_in_raw = leg.amount_in_raw if execution.in_raw is None else execution.in_raw
        fee_raw_by_token[leg.token_in] = fee_raw_by_token.get(leg.token_in, 0) - (
            -amount_in_raw * leg.fee_pips // PIPS
        )
    return {token: raw for token, raw in fee_raw_by_token.items() if raw}


def _is_manual(plan: Plan) -> bool:
    return isinstance(plan.decision, Rebalance) and plan.decision.by_hand


def entry_prices(portfolio: Portfolio, references: ReferencePrices) -> EntryPrices:
    """Return the reference prices at which a step's entries are valued."""
    return EntryPrices(references.price_by_token, portfolio.wrapped_native)


# --- Entries of transactions that are not final yet: the annual gain limit must count their gains
# too.


def unsettled_payout_entries(store: Store, current_step: StepInput) -> tuple[Entry, ...]:
    """Return the entries of payouts that are mined and not final. `current_step` replaces an
    unreadable step.
    """
    return tuple(
        _entry_to_post(store, intent, current_step)
        for intent in store.ledger.unsettled_intents()
        if intent.kind is IntentKind.PAYOUT and intent.succeeded
    )


_MINED_STATES = (IntentState.MINED, IntentState.FINAL, IntentState.REVERTED)


def pending_entries(store: Store, current_step: StepInput) -> tuple[Entry, ...]:
    """Return one entry per nonce that is not final: from the receipt if there is one, else from the
    plan, without gas, which would lower the gain. Among replacements at a nonce, the mined
    transaction counts, else the first. What was not sent and whose nonce is free has no entry, such as
    a proposal that waits: any other plan has its nonce too, and only one of them can be executed.
    `current_step` replaces an unreadable step.
    """
    intent_by_nonce: dict[int, Intent] = {}
    for intent in store.ledger.unsettled_intents():
        is_nonce_free = intent.tx.nonce >= current_step.snapshot.nonce_latest
        if intent.state is IntentState.PLANNED and is_nonce_free:
            continue
        earlier_intent = intent_by_nonce.get(intent.tx.nonce)
        if earlier_intent is None or (
            intent.state in _MINED_STATES and earlier_intent.state not in _MINED_STATES
        ):
            intent_by_nonce[intent.tx.nonce] = intent
    derived_entries = []
    for intent in intent_by_nonce.values():
        if intent.receipt is not None:
            derived_entries.append(_entry_to_post(store, intent, current_step))
        elif (planned_entry := _planned_entry(store, intent, current_step)) is not None:
            derived_entries.append(planned_entry)
    return tuple(derived_entries)


def _planned_entry(store: Store, intent: Intent, current_step: StepInput) -> Entry | None:
    """Return the entry that the plan of an unmined transaction predicts; None without a plan."""
    plan = store.journal.grant(intent.id).plan
    if plan is None:
        return None
    step = originating_step(store.steps, intent) or current_step
    head = step.snapshot.head
    wallet_changes = plan.wallet_changes()
    transaction = SettledTransaction(
        intent.id,
        head.number,
        head.timestamp_s,
        intent.tx_hash or "",
        intent.note,
        wallet_changes,
        0,
    )
    return entries.trade_entry(
        transaction,
        entry_prices(step.portfolio, reference_prices(step)),
        {*wallet_changes, NATIVE},
        {},
    )


# --- Records of chosen weights and hourly reference prices.


def record_allocation(history: History, allocations: AllocationStore) -> None:
    """Record the weights that this step chose, so that a restart uses them again."""
    allocation = history.allocation
    if allocation is not None and allocation != allocations.newest():
        allocations.record(allocation)


def record_hourly_prices(readers: StepReaders, step: StepInput, prices: PriceStore) -> None:
    """Record reference prices in the first cycle of each hour with confirmed prices: the price
    history of triggers, allocators and the ledger.

    If policy.confirm_blocks is set, the preceding blocks are read for this once an hour. If that
    fails, the next cycle retries; the cycle itself never fails because of it.
    """
    at_s = step.snapshot.trusted_time_s
    numeraire = step.portfolio.numeraire.address
    if prices.has_cycle_prices(numeraire, at_s):
        return
    past_prices = step.snapshot.past_prices
    block_count = step.policy.confirm_blocks
    if len(past_prices) < block_count:
        try:
            past_prices = readers.reader.past_prices(step.snapshot.head, block_count)
        except READ_FAILURES:
            return
    price_points = confirmed_prices(step, past_prices, at_s)
    if price_points:
        prices.record_later(numeraire, price_points)
