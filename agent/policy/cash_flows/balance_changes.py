"""Unexplained balance changes: their detection, classification, and the part excluded above
portfolio.max_live_value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.questions import value_outside_wallet
from agent.model import (
    ACCEPTED_KINDS,
    Asset,
    CashFlows,
    ExpectedBalances,
    ExternalTransfer,
    ExternalTransferKind,
    Limits,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy import native_coin
from agent.policy.cash_flows import automatic_deposits
from agent.reference import reference_prices
from agent.units import (
    BPS,
    DAY_S,
    NATIVE,
    Price,
    Value,
    cents_text,
    decimal_text,
    format_bps,
    format_time,
)

ACCEPTANCE_WINDOW_S = 30 * DAY_S
"""Window of chain time in which all increases together block purchases for at most
limits.balance_jump_wait, which is at most as long as the window.
"""
MAX_SHOWN_CHANGES = 5
FRESH_HEAD_S = 60
MAX_LOST_BLOCKS = 1_000
"""Maximum age of a fresh head in seconds; also a number of blocks above what any chain produces in
that time or loses in a reorg.
"""


def is_comparable(snapshot: Snapshot, expected_balances: ExpectedBalances) -> bool:
    """True if balances and expected balances can be compared.

    False for a snapshot older than the openings, and for one that may contain a transaction of the
    agent whose receipt is not in the journal. A recorded height far above a fresh head is ignored,
    so that one bad answer of a single endpoint does not block every later cycle.
    """
    if (
        expected_balances.unsettled_nonce is not None
        and expected_balances.unsettled_nonce < snapshot.nonce_latest
    ):
        return False
    head_number = snapshot.head.number
    is_fresh = abs(snapshot.now_s - snapshot.head.timestamp_s) <= FRESH_HEAD_S
    return all(
        opening.block <= head_number or (is_fresh and opening.block > head_number + MAX_LOST_BLOCKS)
        for opening in expected_balances.openings
    )


def balance_differences(
    snapshot: Snapshot, expected_balances: ExpectedBalances
) -> dict[str, tuple[int, int]]:
    """Return the difference of balance and expected balance by token, base units, with the block of
    the opening.
    """
    if not is_comparable(snapshot, expected_balances):
        return {}
    balances_raw = balances_of(snapshot)
    own_change_raw: dict[str, int] = {}
    for own_change in expected_balances.own_changes:
        if own_change.block <= snapshot.head.number:
            own_change_raw[own_change.token] = (
                own_change_raw.get(own_change.token, 0) + own_change.delta_raw
            )
    difference_by_token = {}
    for opening in expected_balances.openings:
        if opening.token in balances_raw:
            delta_raw = (
                balances_raw[opening.token] - own_change_raw.get(opening.token, 0) - opening.raw
            )
            if delta_raw:
                difference_by_token[opening.token] = (delta_raw, opening.block)
    return difference_by_token


def balances_of(snapshot: Snapshot) -> dict[str, int]:
    """Return every balance whose reads agree, in base units by token; units.NATIVE is the native
    coin.
    """
    unreadable_addresses = {
        unreadable_item.address for unreadable_item in snapshot.unreadable_items
    }
    reads_raw_by_token: dict[str, set[int]] = {}
    for holding in snapshot.holdings:
        reads_raw_by_token.setdefault(holding.token, set()).add(holding.raw)
    agreed_raw = {
        token: next(iter(reads_raw))
        for token, reads_raw in reads_raw_by_token.items()
        if len(reads_raw) == 1 and token not in unreadable_addresses
    }
    return {**agreed_raw, NATIVE: snapshot.native_wei}


def unrecorded_changes(
    step: StepInput, expected_balances: ExpectedBalances
) -> tuple[ExternalTransfer, ...]:
    """Return the unexplained changes of assets and native coin, as transfers that are not stored
    yet.

    Changes of a `rebasing` token are explained by the token itself. Native coin that arrives while
    it is not an asset is gas money. An increase that restores an open decrease closes it. Every
    other change waits for the owner.
    """
    return tuple(flow for flow in changes_to_record(step, expected_balances) if flow.id == 0)


def changes_to_record(
    step: StepInput, expected_balances: ExpectedBalances
) -> tuple[ExternalTransfer, ...]:
    """Return every transfer to store in this cycle: new ones, and changed ones by id.

    An open transfer or a loss without a price is valued once there is one. An increase that blocked purchases for
    limits.balance_jump_wait is accepted as a deposit; while portfolio.max_live_value is exceeded it
    stays unexplained but does not block.
    """
    all_differences = balance_differences(step.snapshot, expected_balances)
    asset_by_token = {asset.token.address: asset for asset in step.portfolio.assets}
    change_by_token = {
        token: change
        for token, change in all_differences.items()
        if token in asset_by_token or token == NATIVE
    }
    if not change_by_token and not (
        transfer_may_change(step.snapshot, expected_balances)
        and is_comparable(step.snapshot, expected_balances)
    ):
        return ()
    prices = reference_prices(step).price_by_token
    # Use chain time: a machine clock set back would move a decrease out of the last 24 h (T6).
    chain_s = step.snapshot.head.timestamp_s
    new_flows = []
    for token, (delta_raw, since_block) in sorted(change_by_token.items()):
        undone_ids = _undone_ids(token, delta_raw, expected_balances.transfers)
        kind = _self_explained_kind(
            step.snapshot,
            step.portfolio,
            asset_by_token.get(token),
            token,
            delta_raw,
            expected_balances.transfers,
            chain_s,
        )
        if undone_ids:
            kind = ExternalTransferKind.UNDONE
        flow = ExternalTransfer(
            0,
            token,
            delta_raw,
            None,
            since_block,
            step.snapshot.head.number,
            chain_s,
            False,
            kind,
            undone_ids,
        )
        new_flows.append(_with_value(step.portfolio, prices, flow))
    recorded_flows = [
        flow for flow in expected_balances.transfers if flow.id not in _closed_ids(new_flows)
    ]
    revalued_flows = [
        revalued_flow
        for flow in recorded_flows
        if flow.awaits_price
        and (revalued_flow := _with_value(step.portfolio, prices, flow)) != flow
    ]
    revalued_ids = {flow.id for flow in revalued_flows}
    judged_flows = _with_halts(
        step,
        prices,
        (*new_flows, *(flow for flow in revalued_flows if flow.is_open)),
        [flow for flow in recorded_flows if flow.id not in revalued_ids],
        chain_s,
    )
    judged_flow_by_id = {flow.id: flow for flow in judged_flows if flow.id}
    max_value = step.limits.max_live_value
    is_above_max = max_value is not None and _known_total(step, prices) > max_value
    open_flows = [flow for flow in recorded_flows if flow.is_open]
    updated_flows = [
        _accepted_if_due(
            step.snapshot,
            step.limits,
            step.history.cash_flows,
            judged_flow_by_id.get(flow.id, flow),
            is_above_max,
        )
        for flow in open_flows
    ]
    if not is_above_max:
        updated_flows = automatic_deposits.with_automatic_deposits(
            step,
            updated_flows,
            [flow for flow in judged_flows if flow.id == 0 and flow.is_open],
            prices,
            _known_total(step, prices),
        )
    flow_pairs = zip(open_flows, updated_flows, strict=True)
    return (
        *(flow for flow in judged_flows if flow.id == 0),
        *(updated_flow for flow, updated_flow in flow_pairs if updated_flow != flow),
        *(flow for flow in revalued_flows if not flow.is_open),
    )


def transfer_may_change(snapshot: Snapshot, expected_balances: ExpectedBalances) -> bool:
    """True if a transfer may change without a balance change: it awaits a price of a token that is
    read, or blocks purchases as an increase.
    """
    tokens = {NATIVE, *(holding.token for holding in snapshot.holdings)}
    return any(
        (flow.awaits_price and flow.token in tokens) or (flow.blocks_trading and flow.delta_raw > 0)
        for flow in expected_balances.transfers
    )


def _with_value(
    portfolio: Portfolio, prices: dict[str, Price], flow: ExternalTransfer
) -> ExternalTransfer:
    price = prices.get(portfolio.pricing_token(flow.token))
    if price is None:
        return flow
    return replace(flow, value=flow.delta_raw * price)


def _accepted_if_due(
    snapshot: Snapshot,
    limits: Limits,
    cash_flows: CashFlows,
    flow: ExternalTransfer,
    is_above_max: bool,
) -> ExternalTransfer:
    """Return the increase as accepted after blocking for long enough; a header from the future
    cannot extend the wait.
    """
    if not flow.blocks_trading or flow.delta_raw < 0:
        return flow
    now_s = min(snapshot.head.timestamp_s, snapshot.now_s + FRESH_HEAD_S)
    if now_s >= acceptance_time_s(limits, cash_flows, flow):
        if is_above_max:
            return replace(flow, exceeds_jump_limit=False)
        return replace(flow, kind=ExternalTransferKind.ACCEPTED)
    return replace(flow, chain_s=min(flow.chain_s, snapshot.head.timestamp_s))


def acceptance_time_s(limits: Limits, cash_flows: CashFlows, flow: ExternalTransfer) -> int:
    """Return the chain time from which an increase that blocks purchases counts as a deposit. It
    depends on the first increase in ACCEPTANCE_WINDOW_S, so that a series of gifts does not prolong
    the block.
    """
    first_rise_s = cash_flows.first_increase_s
    if (
        first_rise_s is not None
        and first_rise_s <= flow.chain_s < first_rise_s + ACCEPTANCE_WINDOW_S
    ):
        began_s = first_rise_s
    else:
        began_s = flow.chain_s
    return began_s + (limits.balance_jump_wait_s or 0)


def _undone_ids(token: str, delta_raw: int, flows: Iterable[ExternalTransfer]) -> tuple[int, ...]:
    """Return the ids of the newest open decreases of `token` that an increase by `delta_raw`
    restores exactly; none for another amount.

    Either an endpoint was wrong or the money came back, so nothing is missing. A decrease after an
    increase is never treated as undone: the owner may have sent the increase and a thief taken it.
    """
    remainder_raw = delta_raw
    undone_ids = []
    for flow in reversed([token_flow for token_flow in flows if token_flow.token == token]):
        if flow.is_open and flow.delta_raw < 0 < remainder_raw:
            undone_ids.append(flow.id)
        elif flow.kind is not ExternalTransferKind.GAS_MONEY:
            break  # a part may have been recorded as gas money while an endpoint was still wrong
        remainder_raw += flow.delta_raw
        if undone_ids and remainder_raw <= 0:
            return tuple(undone_ids) if remainder_raw == 0 else ()
    return ()


def _closed_ids(flows: Iterable[ExternalTransfer]) -> set[int]:
    return {undone_id for flow in flows for undone_id in flow.undone_ids}


def _self_explained_kind(
    snapshot: Snapshot,
    portfolio: Portfolio,
    asset: Asset | None,
    token: str,
    delta_raw: int,
    flows: Iterable[ExternalTransfer],
    now_s: int,
) -> ExternalTransferKind | None:
    if token == NATIVE:
        if delta_raw > 0 and not native_coin.has_native_asset(portfolio):
            return ExternalTransferKind.GAS_MONEY
        return None
    if asset is None or asset.max_rebase_bps == 0:
        return None
    rebased_raw = sum(
        abs(flow.delta_raw)
        for flow in flows
        if flow.token == token
        and flow.kind is ExternalTransferKind.REBASE
        and flow.chain_s > now_s - DAY_S
    )
    balance_before_raw = balances_of(snapshot).get(token, 0) - delta_raw
    if (rebased_raw + abs(delta_raw)) * BPS <= asset.max_rebase_bps * balance_before_raw:
        return ExternalTransferKind.REBASE
    return None


def _with_halts(
    step: StepInput,
    prices: dict[str, Price],
    new_flows: tuple[ExternalTransfer, ...],
    earlier_flows: Iterable[ExternalTransfer],
    now_s: int,
) -> tuple[ExternalTransfer, ...]:
    """Return flows with `halts` set if they exceed limits.balance_jump of the portfolio's value
    before or after them, whichever is smaller. An increase counts with all flows open within a day,
    a decrease only with that day's decreases, so that deposits by others never make a small
    decrease count as a large one. A decrease without a price exceeds any limit; an increase without
    a price is judged once it has one.
    """
    earlier_flows = tuple(earlier_flows)
    max_jump_bps = step.limits.balance_jump_bps
    portfolio_value = _known_total(step, prices)
    base_value = min(
        portfolio_value,
        portfolio_value
        - sum((flow.value for flow in new_flows if flow.value is not None), Fraction(0)),
    ) - automatic_deposits.earlier_deposits_value(
        step, [flow for flow in earlier_flows if flow.is_open]
    )
    recent_flows = [
        flow
        for flow in earlier_flows
        if flow.is_open and not flow.exceeds_jump_limit and flow.chain_s > now_s - DAY_S
    ]
    open_flows = [
        flow for flow in (*new_flows, *recent_flows) if flow.is_open and flow.value is not None
    ]
    change_value, decrease_value = (
        _total_absolute_value(flows)
        for flows in (open_flows, [flow for flow in open_flows if flow.delta_raw < 0])
    )

    def halts(flow: ExternalTransfer) -> bool:
        if not flow.is_open or max_jump_bps is None:
            return False
        if flow.value is None:
            return flow.delta_raw < 0
        return (
            decrease_value if flow.delta_raw < 0 else change_value
        ) * BPS > max_jump_bps * base_value

    return tuple(replace(flow, exceeds_jump_limit=halts(flow)) for flow in new_flows)


def _total_absolute_value(flows: Iterable[ExternalTransfer]) -> Value:
    return sum((abs(flow.value) for flow in flows if flow.value is not None), Fraction(0))


def _known_total(step: StepInput, prices: dict[str, Price]) -> Value:
    """Return the known value of the portfolio at reference prices, reserves included; a lower
    bound. Dust of one token must not halt the agent because the price of another is missing for one
    cycle.
    """
    balances_raw = native_coin.held_balances(step)
    agreed_raw = balances_of(step.snapshot)
    valued_tokens = (
        {asset.token.address for asset in step.portfolio.assets}
        & balances_raw.keys()
        & agreed_raw.keys()
        & prices.keys()
    )
    wallet_value = sum(
        (balances_raw[token] * prices[token] for token in valued_tokens), Fraction(0)
    )
    try:
        return wallet_value + value_outside_wallet(step, prices)
    except Refused:
        return wallet_value


def apply_balance_changes(step: StepInput, expected_balances: ExpectedBalances) -> StepInput:
    """Return the step with the current state of every open flow, including unrecorded ones, and
    with decreases counted as losses.
    """
    changed_flows = changes_to_record(step, expected_balances)
    closed_ids = _closed_ids(changed_flows)
    updated_flow_by_id = {flow.id: flow for flow in changed_flows if flow.id}
    new_flows = [flow for flow in changed_flows if flow.id == 0]
    day_start_s = step.snapshot.head.timestamp_s - DAY_S
    unpriced_reason = "; ".join(
        unpriced_loss_reason(flow, token_label(step.portfolio, flow.token))
        for flow in (
            *(updated_flow_by_id.get(flow.id, flow) for flow in expected_balances.transfers),
            *new_flows,
        )
        if flow.is_loss
        and flow.value is None
        and flow.chain_s > day_start_s
        and flow.id not in closed_ids
    )
    if not changed_flows and not unpriced_reason:
        return step
    history = step.history
    replaced_flows = [
        flow
        for flow in history.cash_flows.unexplained_transfers
        if flow.id in closed_ids or flow.id in updated_flow_by_id
    ]
    loss_change = _loss_value(changed_flows) - _loss_value(replaced_flows)
    day_loss_change = _loss_value(
        flow for flow in changed_flows if flow.chain_s > day_start_s
    ) - _loss_value(flow for flow in replaced_flows if flow.chain_s > day_start_s)
    remaining_flows = tuple(
        updated_flow_by_id.get(flow.id, flow)
        for flow in history.cash_flows.unexplained_transfers
        if flow.id not in closed_ids
    )
    rises_raw = dict(history.cash_flows.unexplained_increases_raw)
    for flow, sign in (
        *(
            (flow, -1)
            for flow in expected_balances.transfers
            if flow.id in closed_ids or flow.id in updated_flow_by_id
        ),
        *((flow, 1) for flow in changed_flows),
    ):
        if flow.is_open and flow.delta_raw > 0:
            rises_raw[flow.token] = rises_raw.get(flow.token, 0) + sign * flow.delta_raw
    other_reasons = history.budgets.unknown_reason.removeprefix(
        history.budgets.unpriced_falls_reason
    )
    return replace(
        step,
        history=replace(
            history,
            cash_flows=replace(
                history.cash_flows,
                unexplained_transfers=tuple(
                    flow for flow in (*remaining_flows, *new_flows) if flow.is_open
                ),
                unexplained_increases_raw=tuple(sorted(rises_raw.items())),
                accepted_deposits=(
                    *history.cash_flows.accepted_deposits,
                    *(flow for flow in changed_flows if flow.kind in ACCEPTED_KINDS),
                ),
            ),
            budgets=replace(
                history.budgets,
                loss_24h=max(Fraction(0), history.budgets.loss_24h + day_loss_change),
                loss_total=max(Fraction(0), history.budgets.loss_total + loss_change),
                decrease_24h=max(Fraction(0), history.budgets.decrease_24h + day_loss_change),
                decrease_total=max(Fraction(0), history.budgets.decrease_total + loss_change),
                unknown_reason="; ".join(
                    filter(None, (unpriced_reason, other_reasons.removeprefix("; ")))
                ),
                unpriced_falls_reason=unpriced_reason,
            ),
        ),
    )


def bound_limits(step: StepInput) -> StepInput:
    """Return the step with limits that automatic deposits of the last day do not raise."""
    if not automatic_deposits.automatic_deposits_value(step.history.cash_flows):
        return step
    total_value = _known_total(step, reference_prices(step).price_by_token)
    return replace(step, limits=automatic_deposits.bound_limits(step, total_value))


def unpriced_loss_reason(flow: ExternalTransfer, token_name: str) -> str:
    """Return why the losses of a day are unknown while a decrease has no price."""
    if not flow.id:
        return f"{token_name} fell and has no price"
    decrease_text = f"flow {flow.id}, a decrease of {token_name}"
    if flow.kind is None:
        return f"{decrease_text}, has no price: confirm its cause (trimtab flows)"
    return f"{decrease_text} explained as {flow.kind.value}, has no price yet"


def _loss_value(flows: Iterable[ExternalTransfer]) -> Value:
    return sum(
        (-flow.value for flow in flows if flow.is_loss and flow.value is not None), Fraction(0)
    )


def halt_reason(portfolio: Portfolio, limits: Limits, cash_flows: CashFlows) -> str:
    """Return why purchases and rebalances are blocked, and until when; empty if they are not."""
    blocking_flows = [flow for flow in cash_flows.unexplained_transfers if flow.blocks_trading]
    if not blocking_flows:
        return ""
    changes_text = "; ".join(
        format_change(portfolio, flow) for flow in blocking_flows[:MAX_SHOWN_CHANGES]
    )
    more_text = (
        f"; and {len(blocking_flows) - MAX_SHOWN_CHANGES} more"
        if len(blocking_flows) > MAX_SHOWN_CHANGES
        else ""
    )
    limit_bps = limits.balance_jump_bps
    if limit_bps is None:
        limit_text = ""
    else:
        limit_text = f" beyond limits.balance_jump of {format_bps(limit_bps)}"
    until_text = "until they are explained"
    if all(flow.delta_raw > 0 for flow in blocking_flows):
        last_acceptance_s = max(
            acceptance_time_s(limits, cash_flows, flow) for flow in blocking_flows
        )
        until_text += f", or accepted as deposits at {format_time(last_acceptance_s)}"
        if limits.max_live_value is not None:
            until_text += (
                " (while portfolio.max_live_value is exceeded they only end the block then)"
            )
        if limits.deposit_auto_bps is not None:
            until_text += ", within limits.deposit_auto after two blocks"
    flow_text = "NUMBER, or all, of those that trimtab flows lists"
    if len(blocking_flows) == 1 and blocking_flows[0].id:
        flow_text = str(blocking_flows[0].id)
    return (
        f"unexplained balance changes{limit_text}: {changes_text}{more_text}; no purchases or rebalances "
        f"{until_text}: trimtab flows confirm {flow_text}; exits, withdrawals and stop continue"
    )


def format_accepted_deposits(
    portfolio: Portfolio, accepted_flows: Sequence[ExternalTransfer]
) -> str:
    """Format the increases accepted as deposits in the last 24 h; empty if there are none."""
    change_texts = [format_change(portfolio, flow) for flow in accepted_flows]
    more_text = (
        f"; and {len(change_texts) - MAX_SHOWN_CHANGES} more"
        if len(change_texts) > MAX_SHOWN_CHANGES
        else ""
    )
    if change_texts:
        return (
            "accepted as a deposit, because it was not explained: "
            f"{'; '.join(change_texts[:MAX_SHOWN_CHANGES])}{more_text}"
        )
    return ""


def transfer_texts(step: StepInput) -> list[str]:
    """Format each unexplained transfer of a step."""
    return [
        format_change(step.portfolio, transfer)
        for transfer in step.history.cash_flows.unexplained_transfers
    ]


def format_change(portfolio: Portfolio, flow: ExternalTransfer) -> str:
    """Format one transfer: token, amount, value and blocks."""
    verb = "rose" if flow.delta_raw > 0 else "fell"
    numeraire = portfolio.numeraire
    if flow.value is None:
        amount_text = "without a price"
    else:
        amount_text = f"{cents_text(abs(flow.value), numeraire.decimals)} {numeraire.label}"
    return (
        f"{token_label(portfolio, flow.token)} {verb} by {format_change_amount(portfolio, flow)} ({amount_text})"
        f" between blocks {flow.since_block} and {flow.block}"
    )


def format_change_amount(portfolio: Portfolio, flow: ExternalTransfer) -> str:
    """Format the amount in whole coins; in base units for a token that is no longer in the
    portfolio.
    """
    token = portfolio.find_token(flow.token)
    if token is None:
        return f"{abs(flow.delta_raw)} base units"
    return decimal_text(abs(flow.delta_raw), token.decimals)


def token_label(portfolio: Portfolio, token: str) -> str:
    """Return a token's display name; its address if it is no longer in the portfolio."""
    if token == NATIVE:
        return "native coin"
    listed_token = portfolio.find_token(token)
    return token if listed_token is None else listed_token.label
