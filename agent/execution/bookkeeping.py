"""Keep the double-entry ledger: entries of final transactions, openings, valuations, hourly prices,
and the prior day of a new store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction, quantize
from agent.accounting.tax_lots import wallet_changes
from agent.amm.lp import positions
from agent.chain.endpoints import EndpointPool
from agent.chain.history import HistoryUnavailable, MinedTx, RecentTransactions, recent_transactions
from agent.errors import Refused, Retryable, TrimtabError
from agent.execution.settlement import (
    originating_step,
    realised_legs,
    review_time_s,
    trade_loss,
    trade_turnover,
)
from agent.execution.step_context import StepReaders
from agent.model import (
    Collect,
    Entry,
    EntryKind,
    ExternalTransaction,
    Intent,
    IntentKind,
    IntentState,
    LpAction,
    LpV2Position,
    LpV3Position,
    Plan,
    Provide,
    Rebalance,
    StepInput,
    UnsignedTx,
    Valuation,
    ValuedHolding,
    Withdraw,
)
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes
from agent.policy.cash_flows.balance_changes import token_label
from agent.policy.liquidity import valuation as liquidity
from agent.ports import (
    AllocationJournal,
    AuditedLedger,
    BalanceJournal,
    BudgetJournal,
    Grant,
    PriceJournal,
    StepStorage,
)
from agent.reference import reference_prices
from agent.reference.checks import confirmed_prices
from agent.units import NATIVE, PIPS, Price

Principal = Callable[[str], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class AuditedEntry:
    """A transaction's recorded entry, and the entry derived from its receipt and step."""

    intent: Intent
    entered: Entry | None
    derived: Entry

    @property
    def differs(self) -> bool:
        """True if the recorded entry is not the derived one."""
        return self.entered is not None and self.entered != self.derived


def update_ledger(store: StepStorage, step: StepInput, force: bool = False) -> None:
    """Post final transactions, open new books, and record a valuation: at most once an hour, after
    each balance change other than by the market, or with `force`.
    """
    for intent in store.ledger.intents_without_entry():
        store.ledger.enter(
            intent,
            derive_entry(
                store, intent, step, store.ledger.counted(intent.id), store.ledger.principal
            ),
        )
    prices = entry_prices(step)
    found = valuation(step, prices)
    if found is None:
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
        if not store.ledger.has_places(
            places
        ):  # a holding missing from the ledger must not look like a profit
            return
    known, books = store.valuations.last_block(), store.balances.expected()
    moved = [*(change.block for change in books.own), *(flow.block for flow in books.flows)]
    store.valuations.record(
        found, force or bool(opened) or any(known < block <= found.block for block in moved)
    )


def audit_entries(
    store: StepStorage, ledger: AuditedLedger, present: StepInput
) -> tuple[AuditedEntry, ...]:
    """Yield every recorded entry with the one derived from journal and receipts, in chain order."""
    written = {entry.id: entry for entry in ledger.entered()}
    found: list[AuditedEntry] = []
    before = [entry for entry in ledger.entries() if entry.kind is EntryKind.OPENING]

    def principal(position: str) -> dict[str, int]:
        sums = entries.account_balances([*before, *(one.derived for one in found)])
        return {
            token: raw
            for (account, token), raw in sums.items()
            if account == f"{entries.LP}:{position}"
        }

    for intent in ledger.enterable_intents():
        found.append(
            AuditedEntry(
                intent,
                written.get(intent.id),
                derive_entry(store, intent, present, store.ledger.counted(intent.id), principal),
            )
        )
    return tuple(found)


def derive_entry(
    store: StepStorage,
    intent: Intent,
    present: StepInput,
    counted: frozenset[str],
    principal: Principal,
) -> Entry:
    """Return the entry of a final transaction at the reference prices of its own step, or of
    `present` if that is unreadable. `principal` returns the net amount provided to a position.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to enter")
    basis, grant, owner = (
        originating_step(store.steps, intent) or present,
        store.journal.grant(intent.id),
        present.snapshot.owner,
    )
    prices, coin = entry_prices(basis), basis.portfolio.wrapped_native
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
    if intent.kind is IntentKind.LIQUIDITY and grant.action is not None and receipt.status == 1:
        return _liquidity(change, grant.action, intent, owner, prices, counted, principal)
    if intent.kind is IntentKind.PAYOUT:
        return entries.payout_entry(change, prices, counted)
    kind = EntryKind.WRAP if intent.kind is IntentKind.UNWRAP else EntryKind.TRADE
    return entries.trade_entry(change, prices, counted, _fees(grant, intent, counted), kind)


def valuation(step: StepInput, prices: EntryPrices) -> Valuation | None:
    """Value of all that the ledger holds at the step's block; None while a balance, a price or a
    position is unknown.
    """
    sure, targets = (
        balance_changes.balances_of(step.snapshot),
        {asset.token.address: asset.target_bps for asset in step.portfolio.assets},
    )
    unknown = [token for token in targets if token not in sure or prices.of(token) is None]
    if unknown:
        return None
    try:
        in_positions = positions.look_through(
            [position for _, position in liquidity.confirmed_positions(step)], prices.by_token
        )
    except Refused:
        return None
    reserved = _reserved(step, sure)
    held = []
    for token in (*targets, NATIVE):
        price = prices.of(token) or Fraction(0)
        held.append(
            ValuedHolding(
                token,
                sure[token],
                in_positions.get(token, 0),
                price,
                targets.get(token, 0),
                reserved.get(token, 0),
            )
        )
    value = sum(((one.wallet_raw + one.lp_raw) * one.price for one in held), Fraction(0))
    return Valuation(
        step.snapshot.head.number, step.snapshot.head.timestamp_s, quantize(value), tuple(held)
    )


def _reserved(step: StepInput, balances: Mapping[str, int]) -> dict[str, int]:
    """Return base units in the wallet that are not managed: reserves, and native coin unless it is
    an asset. The reserve of the native asset is taken from native coin first.
    """
    found = {
        asset.token.address: min(balances[asset.token.address], asset.reserve_raw)
        for asset in step.portfolio.assets
    }
    native = next((asset for asset in step.portfolio.assets if asset.native), None)
    if native is None:
        return found | {NATIVE: balances[NATIVE]}
    kept, token = native_coin.reserved_raw(step, native), native.token.address
    return found | {
        NATIVE: min(balances[NATIVE], kept),
        token: min(balances[token], max(0, kept - balances[NATIVE])),
    }


def _holdings_by_place(
    step: StepInput, prices: EntryPrices
) -> dict[tuple[str, str], tuple[int, Fraction | None]]:
    """Holdings of every asset and the native coin in the wallet and in each position, with their
    value.
    """
    sure = balance_changes.balances_of(step.snapshot)
    found = {
        ("", token): sure[token]
        for token in (*(asset.token.address for asset in step.portfolio.assets), NATIVE)
    }
    for _, position in liquidity.confirmed_positions(step):
        if isinstance(position, LpV2Position | LpV3Position):
            price0, price1 = prices.of(position.token0), prices.of(position.token1)
            for token, raw in zip(
                (position.token0, position.token1),
                positions.owned_amounts(position, price0 or Fraction(1), price1 or Fraction(1)),
                strict=True,
            ):
                found[position.name, token] = raw
    priced = {}
    for (place, token), raw in found.items():
        price = prices.of(token)
        priced[place, token] = (raw, None if price is None else quantize(raw * price))
    return priced


def _liquidity(
    change: SettledTransaction,
    action: LpAction,
    intent: Intent,
    owner: str,
    prices: EntryPrices,
    counted: frozenset[str],
    principal: Principal,
) -> Entry:
    tokens, receipt = (action.token0, action.token1), intent.receipt
    match action:
        case Collect():
            return entries.withdrawal_entry(
                change, prices, counted, action.name, {}, Fraction(0), dict(change.moved)
            )
        case Withdraw():
            share = Fraction(action.liquidity, action.held) if action.held > 0 else Fraction(1)
            fees = dict(zip(tokens, action.fees_raw, strict=True))
            return entries.withdrawal_entry(
                change,
                prices,
                counted,
                action.name,
                principal(action.name),
                min(share, Fraction(1)),
                fees,
            )
        case Provide():
            done = None if receipt is None else positions.position_change(action, receipt, owner)
            return entries.provision_entry(
                change, prices, counted, action.name if done is None else done.name
            )


def _fees(grant: Grant, intent: Intent, counted: frozenset[str]) -> dict[str, int]:
    """Pool fees of each leg by the token that it took, base units rounded up; amounts by the
    receipt, else as planned.
    """
    if grant.plan is None or intent.receipt is None or intent.receipt.status != 1 or not counted:
        return {}
    found: dict[str, int] = {}
    for leg, done in zip(grant.plan.legs, realised_legs(grant.plan, intent.receipt), strict=True):
        raw = leg.amount_in_raw if done.amount_in_raw is None else done.amount_in_raw
        found[leg.token_in] = found.get(leg.token_in, 0) - (-raw * leg.fee_pips // PIPS)
    return {token: raw for token, raw in found.items() if raw}


def _is_manual(plan: Plan) -> bool:
    return isinstance(plan.decision, Rebalance) and plan.decision.by_hand


def entry_prices(step: StepInput) -> EntryPrices:
    """Reference prices of a step, as entries are valued by."""
    return EntryPrices(reference_prices(step).by_token, step.portfolio.wrapped_native)


# --- Unposted mined and pending transactions as entries, so that a year's gain is not realised
# twice.


_MINED = (IntentState.MINED, IntentState.FINAL, IntentState.REVERTED)


def pending_entries(store: StepStorage, present: StepInput) -> tuple[Entry, ...]:
    """Return one entry per unfinal nonce: by the receipt if there is one, else as planned and
    without gas, which would lower the gain. Of replacements at a nonce the mined one counts, else
    the first. `present` replaces an unreadable step.
    """
    by_nonce: dict[int, Intent] = {}
    for intent in store.ledger.unsettled():
        known = by_nonce.get(intent.tx.nonce)
        if known is None or (intent.state in _MINED and known.state not in _MINED):
            by_nonce[intent.tx.nonce] = intent
    found = []
    for intent in by_nonce.values():
        if intent.receipt is not None:
            found.append(
                derive_entry(
                    store, intent, present, store.ledger.counted(intent.id), store.ledger.principal
                )
            )
        elif (planned := _planned(store, intent, present)) is not None:
            found.append(planned)
    return tuple(found)


def _planned(store: StepStorage, intent: Intent, present: StepInput) -> Entry | None:
    """Entry of an unmined transaction as its plan expects it; None if it exchanges nothing."""
    plan = store.journal.grant(intent.id).plan
    if plan is None:
        return None
    basis = originating_step(store.steps, intent) or present
    head, moved = basis.snapshot.head, wallet_changes(plan)
    change = SettledTransaction(
        intent.id, head.number, head.timestamp_s, intent.tx_hash or "", intent.note, moved, 0
    )
    return entries.trade_entry(change, entry_prices(basis), {*moved, NATIVE}, {})


# --- Hourly records of reference prices: the price history of triggers, allocators and the ledger.


def record_allocation(step: StepInput, allocations: AllocationJournal) -> None:
    """Record the weights that this step chose, so that a restart uses the same."""
    chosen = step.history.allocation
    if chosen is not None and chosen != allocations.newest():
        allocations.record(chosen)


def record_hourly_prices(readers: StepReaders, step: StepInput, prices: PriceJournal) -> None:
    """Record reference prices in the first cycle of each hour with confirmed prices.

    If policy.confirm_blocks is set, the preceding blocks are read for it once an hour. If they are
    unreadable the next cycle retries; a cycle never fails for it.
    """
    at_s, numeraire = review_time_s(step.snapshot), step.portfolio.numeraire.address
    if prices.has(numeraire, at_s):
        return
    past, wanted = step.snapshot.past, step.policy.confirm_blocks
    if len(past) < wanted:
        try:
            past = readers.reader.past(step.snapshot.head, wanted)
        except (Refused, Retryable):
            return
    points = confirmed_prices(step, past, at_s)
    if points:
        prices.record(numeraire, points)


# --- Daily limits of a new or adopted store: earlier transactions of the wallet are read from the
# chain (T6).


REMEDY = (
    "use an endpoint with archive state, wait a day, or confirm it with trimtab db adopt"
    " --nothing-lost"
)


def with_prior_day(
    step: StepInput,
    balances: BalanceJournal,
    budgets: BudgetJournal,
    endpoint_pool: EndpointPool,
    contract: bool = False,
) -> StepInput:
    """Return the step with a history of the last 24 h, read from the chain once.

    If the chain cannot answer, the history says so. Daily limits then refuse until the store itself
    covers a whole day or the owner confirms it: no budget starts empty. An exchange is valued at
    the reference prices just before it if feeds and the node still have them, else at present ones.
    Its gain counts as zero and its loss as at least its gas. A transfer out, unless to the router,
    was the owner's own: it costs its gas and counts as paid out (limits.payout_per_day), as does
    the loss of an exchange elsewhere. If the wallet is a `contract`, its nonce does not show
    transactions sent by others.
    """
    snapshot = step.snapshot
    now_s = snapshot.head.timestamp_s
    if balances.prior_day_known(now_s):
        return step
    try:
        if contract and snapshot.nonce_latest:
            raise HistoryUnavailable("earlier transactions of the Safe's owners are not read")
        feeds = [feed.feed for feed in snapshot.feeds if feed.feed in step.portfolio.feeds()]
        found = (
            recent_transactions(
                endpoint_pool, snapshot.owner, snapshot.head, snapshot.nonce_latest, feeds
            )
            if snapshot.nonce_latest
            else RecentTransactions(0, ())
        )
        usage = prior_day_usage(step, found)
    except TrimtabError as error:
        balances.mark_day_asked(now_s)
        why = f"the wallet's last 24 h are not known ({error.message}); {REMEDY}"
        return replace(step, history=replace(step.history, unknown=step.history.unknown or why))
    balances.record_prior_day(usage, snapshot.nonce_latest)
    return replace(step, history=budgets.history(now_s))


def prior_day_usage(step: StepInput, day: RecentTransactions) -> tuple[ExternalTransaction, ...]:
    """Return each transaction's use of the daily limits, at the reference prices of its time if
    known, else present ones. Raises HistoryUnavailable if one moved an asset with neither price: it
    would be recorded without a loss for good.
    """
    assets = {asset.token.address for asset in step.portfolio.assets} | {
        step.portfolio.wrapped_native
    }
    now = reference_prices(step).by_token
    found = []
    for one in day.sent:
        prices = (
            {**now, **reference_prices(_with_feeds_as_of(step, one)).by_token}
            if one.answers
            else now
        )
        moved = {token for token, raw in one.receipt.net(step.snapshot.owner).items() if raw} | {
            step.portfolio.wrapped_native
        }
        for token in sorted((moved & assets) - prices.keys()):
            raise HistoryUnavailable(f"{token_label(step, token)} has no reference price")
        found.append(
            _prior_usage(
                step, one, {token: price for token, price in prices.items() if token in assets}
            )
        )
    return tuple(found)


def _with_feeds_as_of(step: StepInput, sent: MinedTx) -> StepInput:
    """Return the step with the feeds' answers of that time in place of the present ones."""
    then, now_s = dict(sent.answers), step.snapshot.head.timestamp_s
    feeds = tuple(
        (
            replace(feed, answer=then[feed.feed], started_at_s=now_s, updated_at_s=now_s)
            if feed.feed in then
            else feed
        )
        for feed in step.snapshot.feeds
    )
    return replace(step, snapshot=replace(step.snapshot, feeds=feeds))


def _prior_usage(step: StepInput, sent: MinedTx, prices: dict[str, Price]) -> ExternalTransaction:
    coin, wallet, receipt = step.portfolio.wrapped_native, step.snapshot.owner, sent.receipt
    native = prices.get(coin, Fraction(0))
    intent = _as_intent(sent)
    deltas = {token: raw for token, raw in receipt.net(wallet).items() if token in prices and raw}
    if wei := intent.coins(wallet, coin):
        deltas[coin] = deltas.get(coin, 0) + wei
    gas_value = receipt.gas_cost_wei * native
    exchanged = any(raw > 0 for raw in deltas.values()) and any(raw < 0 for raw in deltas.values())
    traded = exchanged or sent.to == step.execution.router
    lost = max(gas_value, trade_loss({}, deltas, prices, gas_value)) if traded else gas_value
    moved = trade_turnover(deltas, prices) if traded else Fraction(0)
    if sent.to == step.execution.router:
        paid = Fraction(0)
    elif traded:  # dust in return does not make a payment an exchange
        paid = lost - gas_value
    else:
        paid = sum((-raw * prices[token] for token, raw in deltas.items() if raw < 0), Fraction(0))
    changes = tuple(sorted(intent.changes(wallet, coin).items()))
    return ExternalTransaction(
        receipt.tx_hash,
        receipt.block_number,
        sent.chain_s,
        moved,
        lost,
        receipt.gas_cost_wei,
        changes,
        paid,
    )


def _as_intent(sent: MinedTx) -> Intent:
    """Return the transaction as an intent, to read its receipt by the same rules."""
    tx = UnsignedTx(0, sent.nonce, sent.to or NATIVE, sent.value_wei, "0x", 0, None, None, None)
    state = IntentState.FINAL if sent.receipt.status == 1 else IntentState.REVERTED
    return Intent(
        "",
        "",
        IntentKind.SWAP,
        state,
        tx,
        "",
        sent.chain_s,
        None,
        sent.receipt.tx_hash,
        sent.receipt,
    )
