"""Plans shown before a control: the dry runs behind them, the parts that bind the control, and what
a queued edit may change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.app import config_versions
from agent.app.agent import Agent, open_agent
from agent.app.controls.queue import check_arguments, require_paper_kind, waiting_plan
from agent.app.documents import fill, owner
from agent.app.documents.controls import (
    ShownPlanDocument,
    sealed_with_document,
    shown_plan_document,
    stored_plan_document,
)
from agent.app.documents.plans import plan_document
from agent.app.documents.positions import HoldingsChangeDocument
from agent.app.money import shutdown, transfers
from agent.app.positions import holdings
from agent.app.settings import editing
from agent.app.settings.devices import require_usable_targets
from agent.chain.rpc import Transport
from agent.config.load import UNSAVED_REMEDY, load_config, load_config_text
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.redaction import leaf_values
from agent.config.schema import Config
from agent.config.tables.fields import ConfigTable
from agent.config.tables.limits import ANY, is_tighter
from agent.config.tables.orders import ExitKeys, OrderKeys
from agent.config.tables.portfolio import AssetTable
from agent.config.writing.edits import (
    ConfigChanges,
    apply_changes,
    parse_changes,
    removals_as_sales,
)
from agent.errors import Refused, kind_words
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers import settings as layer_settings
from agent.layers.futures.state import collateral_token, futures_policy, margin_account
from agent.model import (
    LIMITS,
    Collect,
    Control,
    ControlArguments,
    ControlCode,
    ControlKind,
    ControlOrigin,
    FuturesPlan,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    PerpOrder,
    Plan,
    Portfolio,
    ShownPlan,
    StepInput,
    Verdict,
    as_lp_action,
)
from agent.reference import reference_prices
from agent.store.files.secret import ensure_secret
from agent.units import BPS, decimal_text, floor_int

if TYPE_CHECKING:
    from agent.app.documents.plans import PlanDocument
    from agent.app.money.shutdown import ShutdownReport
    from agent.app.money.transfers import InvestmentReport
    from agent.app.positions.holdings import HoldingsChange
    from agent.app.settings.editing import EditReport
    from agent.app.withdrawals.withdrawal_run import WithdrawalReport
    from agent.ports import Clock

TOLERANCE_BPS = 500
"""Largest change of an amount between the shown plan and the one carried out, in bps of the plan's
turnover; of a position's or order's size for liquidity and futures.
"""
ANY_AMOUNT_BPS = 10_000
"""Tolerance for plans whose amounts follow from prices: a full sale, and the transition of an edit,
which sends nothing.
"""


@dataclass(frozen=True, slots=True)
class ControlPreview:
    """A plan to show with its command's document; `refusal` says why it cannot be carried out.
    `account` is the margin account of its orders, if known.
    """

    plan: ShownPlan
    command_document: Mapping[str, Any]
    refusal: str = ""
    account: MarginAccount | None = None


def preview_control(
    config: ConfigSource,
    kind: ControlKind,
    arguments: ControlArguments = (),
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> ShownPlanDocument:
    """Plan a request now, store what was shown, and return it with its hash. Sends nothing.

    For CONFIRM it is the plan that the run offers; Refused without one. Raises the errors of the
    request's command.
    """
    loaded_config = load_config(config)
    check_arguments(loaded_config, kind, arguments)
    if loaded_config.is_paper:
        require_paper_kind(kind, arguments)
    secret = ensure_secret(wiring.store_file(loaded_config))
    if kind is ControlKind.CONFIRM:
        return _waiting_plan_document(loaded_config, secret)
    with open_agent(loaded_config, transports=transports, clock=clock) as agent:
        store = agent.context.store
        now_s = agent.context.clock.now_s()
        preview = preview_with_agent(agent, kind, arguments, transports)
        moves = format_moves(preview.plan, agent.portfolio, preview.account)
        plan = sealed_with_document(
            preview.plan,
            preview.command_document,
            moves,
            now_s,
            secret,
            store.controls.newest_number(),
        )
        if not preview.refusal:
            store.controls.record_shown(plan)
    return shown_plan_document(plan, preview.command_document, moves, preview.refusal)


def _waiting_plan_document(loaded_config: LoadedConfig, secret: bytes) -> ShownPlanDocument:
    """Return the plan that the run offers, from the store alone. Raises Refused without one."""
    with wiring.open_store_offline(loaded_config) as (store, _):
        offered_plan = waiting_plan(store, secret)
    if offered_plan is None:
        raise Refused(
            "no plan waits for a confirmation",
            remedy="only trimtab run --send --offer offers plans",
            code=ControlCode.NOT_WAITING,
        )
    return stored_plan_document(offered_plan)


def format_moves(
    plan: ShownPlan, portfolio: Portfolio, account: MarginAccount | None = None
) -> tuple[str, ...]:
    """Return the amounts of a plan as text: "-0.5 WETH", "pay 500 USDC", "set aside 5 USDC",
    "futures reduce 2 ETH"; in base units if the token, or the market's `account`, is unknown.
    """
    markets = () if account is None else account.markets
    market_by_name = {market.market: market for market in markets}
    moves = []
    for amount_name, raw, _ in plan.amounts:
        kind, *name_words = amount_name.split(" ")
        if kind == "futures" and (market := market_by_name.get(name_words[0])) is not None:
            amount_text = decimal_text(raw, market.size_decimals)
            moves.append(" ".join([kind, *name_words[1:], amount_text, market.symbol]))
            continue
        verb, _, address = amount_name.rpartition(" ")
        token = portfolio.find_token(address)
        if token is None:
            moves.append(f"{amount_name} {raw}")
            continue
        amount_text = decimal_text(raw, token.decimals)
        moves.append(
            f"{verb} {amount_text} {token.label}" if verb else f"{amount_text} {token.label}"
        )
    return tuple(moves)


def _refusal_reason(state: str, reason: str) -> str:
    """Return why there is nothing to confirm: the reason or the state; empty if it is planned."""
    if state == OutcomeKind.PLANNED.value:
        return ""
    return reason or state


def preview_with_agent(
    agent: Agent,
    kind: ControlKind,
    arguments: ControlArguments,
    transports: Sequence[Transport] | None = None,
) -> ControlPreview:
    """Plan a request with an open agent. Raises Refused if there is nothing to plan."""
    match kind:
        case ControlKind.REBALANCE:
            outcome = agent.plan()
            refusal = _refusal_reason(outcome.kind.value, outcome.reason or "no plan")
            live_document = agent.plan_document(outcome, send_allowed=False)
            account = margin_account(outcome.step_input.snapshot)
            return ControlPreview(shown_step(kind, outcome), live_document, refusal, account)
        case ControlKind.INVEST:
            return _preview_investment(agent, arguments)
        case ControlKind.WITHDRAW:
            withdrawal = withdraw_by_control(agent, arguments, send=False, confirm=lambda _: False)
            withdrawal_document = fill(owner.WithdrawalDocument, withdrawal, agent.portfolio)
            refusal = _refusal_reason(withdrawal.state, withdrawal.reason)
            if withdrawal.repeats and not _as_control(arguments).flag("again"):
                refusal = refusal or f"{withdrawal.repeats}; to withdraw a second time: again=yes"
            return ControlPreview(
                shown_withdrawal(arguments, withdrawal), withdrawal_document, refusal
            )
        case ControlKind.EDIT:
            edit_report = edit_by_control(agent, arguments, transports, confirm=None)
            if edit_report.implausible_levels:
                raise Refused(
                    "; ".join(edit_report.implausible_levels),
                    remedy='write a nearer level, such as "20%", or set it at the terminal: trimtab orders set',
                )
            refusal = _refusal_reason(edit_report.state, f"the config is {edit_report.state}")
            plan = shown_edit(arguments, edit_report)
            document = {**editing.edit_document(edit_report), **_next_cycle_field(edit_report)}
            return ControlPreview(plan, document, refusal)
        case ControlKind.STOP:
            shutdown_report = stop_by_control(agent, arguments, send=False, confirm=lambda _: False)
            shutdown_document = fill(owner.ShutdownDocument, shutdown_report, agent.portfolio)
            refusal = _refusal_reason(shutdown_report.state, shutdown_report.reason)
            return ControlPreview(
                shown_stop(arguments, shutdown_report), shutdown_document, refusal
            )
        case ControlKind.HOLDINGS:
            holdings_change = holdings.change_by_control(agent, arguments)
            holdings_document: HoldingsChangeDocument = {
                "changes": list(holdings_change.changes),
                "warnings": list(holdings_change.warnings),
                "strategies": holdings_change.document
                if "strategies" in holdings_change.document
                else None,
            }
            return ControlPreview(shown_holdings(arguments, holdings_change), holdings_document)
    raise Refused(f"{kind.value} has no plan to show", remedy="send it without one")


def _next_cycle_field(report: EditReport) -> dict[str, PlanDocument]:
    """Return the field `next_cycle` of a shown edit; empty if nothing was planned."""
    return {} if report.next_cycle is None else {"next_cycle": plan_document(report.next_cycle)}


def _preview_investment(agent: Agent, arguments: ControlArguments) -> ControlPreview:
    report = transfers.invest(agent, transfer_ids=flow_numbers(arguments), confirm=lambda _: False)
    investment_document = transfers.investment_document(report, agent, is_sent=False)
    refusal = ""
    if report.outcome is None:
        refusal = "no new deposit was found"
    elif report.outcome.kind not in (OutcomeKind.PLANNED, OutcomeKind.HOLD):
        refusal = report.outcome.reason or report.outcome.kind.value
    return ControlPreview(shown_investment(arguments, report), investment_document, refusal)


def flow_numbers(arguments: ControlArguments) -> tuple[int, ...]:
    """Return the numbers of the deposits to invest; all of them without a number."""
    return tuple(int(number_text) for _, number_text in arguments)


def withdraw_by_control(
    agent: Agent,
    arguments: ControlArguments,
    *,
    send: bool,
    confirm: Callable[[WithdrawalReport], bool],
    progress: Callable[[str], None] = lambda _: None,
    control_id: str = "",
) -> WithdrawalReport:
    """Withdraw, or resume a withdrawal."""
    control = _as_control(arguments)
    if (request_number := control.argument("resume")) is not None:
        return transfers.resume_withdrawal(
            agent,
            int(request_number),
            to=control.argument("to"),
            send=send,
            confirm=confirm,
            progress=progress,
        )
    return transfers.withdraw(
        agent,
        transfers.WithdrawalRequest(
            control.argument("amount") or "",
            control.argument("in"),
            control.flag("pro-rata"),
            control.argument("to"),
            control.flag("again"),
            control_id,
        ),
        send=send,
        confirm=confirm,
        progress=progress,
    )


def stop_by_control(
    agent: Agent,
    arguments: ControlArguments,
    *,
    send: bool,
    confirm: Callable[[ShutdownReport], bool],
    progress: Callable[[str], None] = lambda _: None,
) -> ShutdownReport:
    """Stop the bot, or continue an unfinished stop."""
    control = _as_control(arguments)
    return shutdown.stop(
        agent,
        to_stable=control.flag("to-stable"),
        send_to=control.argument("send-to"),
        send=send,
        confirm=confirm,
        progress=progress,
    )


def edit_by_control(
    agent: Agent,
    arguments: ControlArguments,
    transports: Sequence[Transport] | None,
    *,
    confirm: editing.Confirm | None,
) -> EditReport:
    """Edit the config, unless the edit would permit more than before (Refused)."""
    control = _as_control(arguments)
    config_path = agent.context.loaded_config.path
    config_changes = parse_changes(
        control.argument_values("set"),
        control.argument_values("target"),
        (),
        control.argument_values("remove"),
    )

    def edit_text(config_text: str, edit_changes: ConfigChanges) -> str:
        config_text_after = apply_changes(config_text, edit_changes)
        config_before = load_config_text(config_text, config_path, str(config_path))
        config_after = load_config_text(
            config_text_after, config_path, "the edited config", remedy=UNSAVED_REMEDY
        )
        if config_before.config == config_after.config:  # or it would confirm changes made by hand
            raise Refused(
                "the edit changes nothing", remedy=TERMINAL_REMEDY, code=ControlCode.UNCHANGED
            )
        owner_config = config_versions.owner_confirmed_config(
            config_before, agent.context.store.configs
        )
        require_no_widening(config_before.config, config_after.config, owner_config)
        if config_before.config.alerts.targets != config_after.config.alerts.targets:
            require_usable_targets(config_after)
        return config_text_after

    return editing.edit(
        config_path,
        editing.TextEdit(
            partial(edit_text, edit_changes=config_changes),
            partial(edit_text, edit_changes=removals_as_sales(config_changes))
            if config_changes.removed_symbols
            else None,
        ),
        editing.EditOptions(in_slices=control.flag("in-slices"), is_unreviewed=True),
        origin=config_versions.CONTROL_ORIGIN,
        confirm=confirm,
        transports=transports,
        clock=agent.context.clock,
    )


def _as_control(arguments: ControlArguments) -> Control:
    """Return the arguments as a control, for its accessors."""
    return Control("", ControlKind.EDIT, arguments, "", "", ControlOrigin.CLI, 0, 0)


def shown_step(
    kind: ControlKind,
    outcome: StepOutcome,
    arguments: ControlArguments = (),
    exact_parts: tuple[tuple[str, str], ...] = (),
) -> ShownPlan:
    """Return the binding parts of one step's plan."""
    return ShownPlan(
        kind, arguments, (*_exact_parts(outcome), *exact_parts), _plan_amounts([outcome])
    )


def shown_investment(arguments: ControlArguments, report: InvestmentReport) -> ShownPlan:
    """Return the binding parts of an investment: the deposits and their plan."""
    deposit_parts = tuple(("deposit", f"{flow.token} {flow.delta_raw}") for flow in report.deposits)
    deposits_part = (
        "deposits",
        "; ".join(sorted(deposit_text for _, deposit_text in deposit_parts)),
    )
    purchase = report.step_input.history.cash_flows.purchase
    exact_parts = (deposits_part, ("purchase", "" if purchase is None else purchase.id))
    if report.outcome is None:
        return ShownPlan(ControlKind.INVEST, arguments, exact_parts, ())
    return shown_step(ControlKind.INVEST, report.outcome, arguments, exact_parts)


def shown_withdrawal(arguments: ControlArguments, report: WithdrawalReport) -> ShownPlan:
    """Return the binding parts of a withdrawal: payments, their address, and the sale before
    them.
    """
    tolerance_bps = TOLERANCE_BPS if _as_control(arguments).flag("pro-rata") else 0
    verb = "set aside" if report.payout_address is None else "pay"
    payment_amounts = tuple(
        (
            f"{verb}{' native' if payment.native else ''} {payment.token}",
            payment.raw,
            payment.raw * tolerance_bps // BPS,
        )
        for payment in report.payments
    )
    sale_amounts = () if report.sale is None else _plan_amounts([report.sale])
    exact_parts = (
        ("to", report.payout_address or ""),
        ("sale", "no" if report.sale is None else "yes"),
        *((("repeats", report.repeats),) if report.repeats else ()),
    )
    return ShownPlan(
        ControlKind.WITHDRAW, arguments, exact_parts, (*sale_amounts, *payment_amounts)
    )


def shown_stop(arguments: ControlArguments, report: ShutdownReport) -> ShownPlan:
    """Return the binding parts of a stop: whether it sells, the tokens sold, and the address paid.
    It sells and pays everything, so the amounts are not fixed in advance.
    """
    exact_parts = (("to_stable", str(report.to_stable)), ("to", report.payout_address or ""))
    sale_amounts = _plan_amounts(report.sale_outcomes, ANY_AMOUNT_BPS)
    return ShownPlan(ControlKind.STOP, arguments, exact_parts, sale_amounts)


def shown_edit(arguments: ControlArguments, report: EditReport) -> ShownPlan:
    """Return the binding parts of an edit: changed lines, earlier changes by hand, and the tokens
    of its transition. An edit sends nothing.
    """
    exact_parts = (
        ("changes", "\n".join(report.changes)),
        ("earlier_edits", "\n".join(report.earlier_edits)),
        ("next", "\n".join(report.next_commands)),
    )
    transition_amounts = (
        () if report.transition is None else _plan_amounts([report.transition], ANY_AMOUNT_BPS)
    )
    return ShownPlan(ControlKind.EDIT, arguments, exact_parts, transition_amounts)


def shown_holdings(arguments: ControlArguments, holdings_change: HoldingsChange) -> ShownPlan:
    """Return the binding parts of a change of what counts as whose."""
    exact_parts = (("changes", "\n".join(holdings_change.changes)),)
    amounts = tuple(
        (amount_name, raw, abs(raw) * tolerance_bps // BPS)
        for amount_name, raw, tolerance_bps in holdings_change.amounts
    )
    return ShownPlan(ControlKind.HOLDINGS, arguments, exact_parts, amounts)


def _exact_parts(outcome: StepOutcome) -> tuple[tuple[str, str], ...]:
    """Return the parts of a step that may not change: kind of decision, exit, limit order, and
    changes of a delegate.
    """
    plan = outcome.plan
    actions: Sequence[object] = () if plan is None else plan.layer(FuturesPlan).actions
    delegate_changes = [
        action
        for action in actions
        if not isinstance(action, PerpOrder | MarginDeposit | MarginWithdrawal)
    ]
    return (
        ("decision", type(outcome.decision).__name__),
        ("exit", outcome.decision_result.exit_token),
        ("order", outcome.decision_result.filled_order_id),
        ("delegate", "; ".join(repr(action) for action in delegate_changes)),
    )


def _plan_amounts(
    outcomes: Sequence[StepOutcome], tolerance_bps: int = TOLERANCE_BPS
) -> tuple[tuple[str, int, int], ...]:
    """Return (name, amount, tolerance) of everything that the plans move, summed by name."""
    totals_by_name: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        if outcome.plan is None:
            continue
        for amount_name, amount, tolerance in (
            *_swap_amounts(outcome.step_input, outcome.plan, tolerance_bps),
            *_liquidity_amounts(outcome.plan, tolerance_bps),
            *_futures_amounts(outcome.step_input, outcome.plan, tolerance_bps),
        ):
            earlier_amount, earlier_tolerance = totals_by_name.get(amount_name, (0, 0))
            totals_by_name[amount_name] = (
                earlier_amount + amount,
                earlier_tolerance + tolerance,
            )
    return tuple(
        (amount_name, *totals_by_name[amount_name]) for amount_name in sorted(totals_by_name)
    )


def _swap_amounts(step: StepInput, plan: Plan, tolerance_bps: int) -> list[tuple[str, int, int]]:
    """Return the changes of the wallet by token, each with the tolerance in that token."""
    price_by_token = reference_prices(step).price_by_token
    tolerance_value = plan.turnover * tolerance_bps / BPS
    named_amounts = []
    for token, raw in plan.wallet_changes().items():
        price = price_by_token.get(step.portfolio.pricing_token(token))
        named_amounts.append((token, raw, floor_int(tolerance_value / price) if price else 0))
    return named_amounts


def _liquidity_amounts(plan: Plan, tolerance_bps: int) -> list[tuple[str, int, int]]:
    named_amounts = []
    for action in map(as_lp_action, plan.layer_actions):
        amounts = action.fees_raw if isinstance(action, Collect) else action.amounts_raw
        for token, raw in zip((action.token0, action.token1), amounts, strict=True):
            amount_name = f"{kind_words(type(action))} {action.name} {token}"
            named_amounts.append((amount_name, raw, raw * tolerance_bps // BPS))
    return named_amounts


def _futures_amounts(step: StepInput, plan: Plan, tolerance_bps: int) -> list[tuple[str, int, int]]:
    collateral = collateral_token(futures_policy(step))
    named_amounts = []
    for action in plan.layer(FuturesPlan).actions:
        if isinstance(action, PerpOrder):
            amount_name = f"futures {action.market}{' reduce' if action.is_reduce_only else ''}"
            named_amounts.append(
                (amount_name, action.size_raw, abs(action.size_raw) * tolerance_bps // BPS)
            )
        elif isinstance(action, MarginDeposit | MarginWithdrawal):
            amount_name = f"{kind_words(type(action))} {collateral}"
            named_amounts.append((amount_name, action.raw, action.raw * tolerance_bps // BPS))
    return named_amounts


EDITABLE_ALERT_KEYS = frozenset({"targets"})
EDITABLE_POLICY_KEYS = frozenset({"trigger", "destination", "cooldown", "only", "risk", "jitter"})
EDITABLE_ASSET_KEYS = frozenset({"target", "band", "reserve", *OrderKeys.model_fields})
EXIT_KEYS = frozenset(ExitKeys.model_fields)
TERMINAL_REMEDY = "change it at the terminal: trimtab edit"


def require_no_widening(
    config_before: Config, config_after: Config, owner_config: Config | None = None
) -> None:
    """Raise Refused if the edited config may permit more than the present one (another address,
    contract, token, endpoint or key, a looser limit, or anything else outside the lists above), or
    may stop an exit. A key is exempt if its new value would be permitted as an edit of
    `owner_config`, the last config that the owner confirmed.
    """
    owner_widening_keys = (
        None if owner_config is None else {*_widening_keys(owner_config, config_after)}
    )
    for key in _widening_keys(config_before, config_after):
        if owner_widening_keys is not None and key not in owner_widening_keys:
            continue
        verdict = Verdict("control_edit", key, "targets, triggers, limits of trades", False)
        raise Refused(
            f"{key}: a control may not change it, because it decides what the agent may do, or"
            " whether exits run",
            (verdict,),
            TERMINAL_REMEDY,
            code=ControlCode.WIDENS,
        )


def _widening_keys(config_before: Config, config_after: Config) -> Iterator[str]:
    editable_keys = layer_settings.editable_keys(config_before, config_after)
    for key in Config.model_fields:
        old_value = getattr(config_before, key)
        new_value = getattr(config_after, key)
        if old_value == new_value:
            continue
        match key:
            case "portfolio":
                yield from _portfolio_keys(config_before, config_after)
            case "policy":
                yield from _table_keys(key, old_value, new_value, EDITABLE_POLICY_KEYS)
            case "limits":
                yield from _limit_keys(old_value, new_value)
            case "alerts":
                yield from _table_keys(key, old_value, new_value, EDITABLE_ALERT_KEYS)
            case _ if any(editable_key.startswith(f"{key}.") for editable_key in editable_keys):
                changed_paths = _changed_paths(key, config_before, config_after)
                yield from sorted(changed_paths - editable_keys)
            case _ if isinstance(old_value, ConfigTable) and type(old_value) is type(new_value):
                yield from _table_keys(key, old_value, new_value)
            case _:
                yield key


def _changed_paths(table_name: str, config_before: Config, config_after: Config) -> set[str]:
    """Return the paths of all values below a key of the config that differ."""
    old_values, new_values = (
        dict(leaf_values(config.model_dump(include={table_name})))
        for config in (config_before, config_after)
    )
    return {
        key_path
        for key_path in old_values.keys() | new_values.keys()
        if (key_path in old_values, old_values.get(key_path))
        != (key_path in new_values, new_values.get(key_path))
    }


def _portfolio_keys(config_before: Config, config_after: Config) -> Iterator[str]:
    old_portfolio = config_before.portfolio
    new_portfolio = config_after.portfolio
    for key in type(old_portfolio).model_fields:
        if key == "assets" or getattr(old_portfolio, key) == getattr(new_portfolio, key):
            continue
        if key != "max_live_value" or not _is_lower(
            new_portfolio.max_live_value, old_portfolio.max_live_value
        ):
            yield f"portfolio.{key}"
    old_assets = {asset.symbol: asset for asset in old_portfolio.assets}
    for asset in new_portfolio.assets:
        if (old_asset := old_assets.get(asset.symbol)) is None:
            yield f"portfolio.assets.{asset.symbol}"
            continue
        yield from (
            f"portfolio.assets.{asset.symbol}.{key}"
            for key in AssetTable.model_fields
            if getattr(old_asset, key) != getattr(asset, key)
            and (key not in EDITABLE_ASSET_KEYS or _may_stop_exits(key, old_asset, asset))
        )


def _may_stop_exits(key: str, old_asset: AssetTable, new_asset: AssetTable) -> bool:
    """Return whether a change of an asset's key may stop its exits: a higher reserve, an exit order
    that is set, or an entry, from whose fill exits count.
    """
    if key == "reserve":
        return Decimal(new_asset.reserve) > Decimal(old_asset.reserve)
    if key in EXIT_KEYS:
        return getattr(old_asset, key) is not None
    return key == "entry" and any(
        getattr(old_asset, exit_key) is not None for exit_key in EXIT_KEYS
    )


def _table_keys(
    table_name: str, old_table: Any, new_table: Any, editable_keys: Collection[str] = ()
) -> Iterator[str]:
    for key in type(old_table).model_fields:
        if key not in editable_keys and getattr(old_table, key) != getattr(new_table, key):
            yield f"{table_name}.{key}"


def _limit_keys(old_limits: Any, new_limits: Any) -> Iterator[str]:
    for key in type(old_limits).model_fields:
        old_limit = getattr(old_limits, key)
        new_limit = getattr(new_limits, key)
        if old_limit == new_limit:
            continue
        if key == "i_accept":
            is_tightened = set(new_limit) <= set(old_limit)
        elif key == "max_weight":
            is_tightened = _no_cap_raised(new_limit, old_limit)
        elif key in LIMITS:
            is_tightened = not LIMITS[key].binds_exits and is_tighter(key, new_limit, old_limit)
        else:
            is_tightened = _is_lower(new_limit, old_limit)
        if not is_tightened:
            yield f"limits.{key}"


def _no_cap_raised(new_caps: dict[str, int] | None, old_caps: dict[str, int] | None) -> bool:
    """Return whether no asset's cap is higher than before; None means no caps. A new cap of an
    asset replaces that of "any".
    """
    if new_caps is None:
        return False
    caps_before = old_caps or {}
    return set(caps_before) <= set(new_caps) and all(
        cap <= caps_before.get(symbol, caps_before.get(ANY, BPS))
        for symbol, cap in new_caps.items()
    )


def _is_lower(new_cap: Any, old_cap: Any) -> bool:
    """Return whether a cap is lower; None is the loosest."""
    if new_cap is None:
        return False
    return old_cap is None or Decimal(new_cap) < Decimal(old_cap)
