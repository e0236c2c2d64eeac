"""Plans shown before a control: the dry runs behind them, the parts that bind the control, and what
a queued edit may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.app import config_versions
from agent.app.agent import Agent, open_agent
from agent.app.controls.queue import check_arguments, parse_kind, waiting_plan
from agent.app.documents import fill, owner
from agent.app.documents.owner import (
    ShownPlanDocument,
    shown_document,
    stored_document,
    with_document,
)
from agent.app.money import shutdown
from agent.app.money import transfers as money
from agent.app.settings import editing
from agent.chain.rpc import Transport
from agent.config.fields import ConfigTable
from agent.config.load import load_config, load_config_text
from agent.config.loaded import ConfigSource
from agent.config.schema import Config
from agent.config.tables.limits import ANY, is_tighter
from agent.config.tables.orders import ExitKeys, OrderKeys
from agent.config.tables.portfolio import AssetTable
from agent.config.writing.edits import (
    ConfigChanges,
    apply_changes,
    parse_changes,
    sell_removed_assets,
)
from agent.errors import Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import (
    LIMITS,
    Arguments,
    Collect,
    Control,
    ControlCode,
    ControlKind,
    ControlOrigin,
    FuturesPlan,
    MarginDeposit,
    MarginWithdrawal,
    PerpOrder,
    Plan,
    Portfolio,
    ShownPlan,
    Verdict,
    lp_action,
)
from agent.reference import reference_prices
from agent.store.files.secret import installation_secret
from agent.units import BPS, Price, decimal_text, floor_int

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.app.money.shutdown import ShutdownReport
    from agent.app.money.transfers import InvestmentReport
    from agent.app.settings.editing import EditReport
    from agent.app.withdrawal_run import WithdrawalReport
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
    """A plan to show with its command's document; `refusal` says why it cannot be carried out."""

    plan: ShownPlan
    document: Mapping[str, Any]
    refusal: str = ""


def preview_control(
    config: ConfigSource,
    kind: ControlKind | str,
    arguments: Iterable[tuple[str, str]] = (),
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> ShownPlanDocument:
    """Plan a request now, store what was shown, and return it with its hash. Sends nothing.

    For CONFIRM it is the plan that the run offers; Refused without one. Raises the errors of the
    request's command.
    """
    loaded = load_config(config)
    kind = parse_kind(kind)
    pairs = check_arguments(loaded, kind, arguments)
    secret = installation_secret(wiring.store_file(loaded))
    with open_agent(loaded, transports=transports, clock=clock) as agent:
        store, now_s = agent.context.store, agent.context.clock.now_s()
        if kind is ControlKind.CONFIRM:
            if (waiting := waiting_plan(store, secret)) is None:
                raise Refused(
                    "no plan waits for a confirmation",
                    remedy="only trimtab run --send --offer offers plans",
                    code=ControlCode.NOT_WAITING,
                )
            return stored_document(waiting)
        preview = preview_on(agent, kind, pairs, transports)
        moves = format_moves(preview.plan, agent.portfolio)
        plan = with_document(preview.plan, preview.document, moves, now_s, secret)
        if not preview.refusal:
            store.controls.show(plan)
    return shown_document(plan, preview.document, moves, preview.refusal)


def format_moves(plan: ShownPlan, portfolio: Portfolio) -> tuple[str, ...]:
    """Return the amounts of a plan as text: "-0.5 WETH", "pay 500 USDC"; in base units if the
    token is unknown.
    """
    known = {
        token.address: token
        for token in (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    }
    moves = []
    for name, raw, _ in plan.amounts:
        verb, _, address = name.rpartition(" ")
        if (token := known.get(address)) is None:
            moves.append(f"{name} {raw}")
            continue
        amount = decimal_text(raw, token.decimals)
        moves.append(f"{verb} {amount} {token.label}" if verb else f"{amount} {token.label}")
    return tuple(moves)


def _refusal(state: str, reason: str) -> str:
    """Return why there is nothing to confirm: the reason or the state; empty if it is planned."""
    if state == OutcomeKind.PLANNED.value:
        return ""
    return reason or state


def preview_on(
    agent: Agent,
    kind: ControlKind,
    arguments: Arguments,
    transports: Sequence[Transport] | None = None,
) -> ControlPreview:
    """Plan a request with an open agent. Raises Refused if there is nothing to plan."""
    match kind:
        case ControlKind.REBALANCE:
            outcome = agent.plan()
            refusal = _refusal(outcome.kind.value, outcome.reason or "no plan")
            planned = agent.plan_document(outcome, sent=False)
            return ControlPreview(shown_step(kind, outcome), planned, refusal)
        case ControlKind.INVEST:
            return _preview_investment(agent, arguments)
        case ControlKind.WITHDRAW:
            paid = withdraw(agent, arguments, send=False, confirm=lambda _: False)
            payments = fill(owner.WithdrawalDocument, paid, agent.portfolio)
            refusal = _refusal(paid.state, paid.reason)
            return ControlPreview(shown_withdrawal(arguments, paid), payments, refusal)
        case ControlKind.EDIT:
            edited = edit(agent, arguments, transports, confirm=None)
            refusal = _refusal(edited.state, f"the config is {edited.state}")
            plan = shown_edit(arguments, edited)
            return ControlPreview(plan, editing.edit_document(edited), refusal)
        case ControlKind.STOP:
            ended = stop(agent, arguments, send=False, confirm=lambda _: False)
            stopped = fill(owner.ShutdownDocument, ended, agent.portfolio)
            refusal = _refusal(ended.state, ended.reason)
            return ControlPreview(shown_stop(arguments, ended), stopped, refusal)
    raise Refused(f"{kind.value} has no plan to show", remedy="send it without one")


def _preview_investment(agent: Agent, arguments: Arguments) -> ControlPreview:
    report = money.invest(agent, only=flows(arguments), confirm=lambda _: False)
    document = money.investment_document(report, agent, sent=False)
    refusal = ""
    if report.outcome is None:
        refusal = "no new deposit was found"
    elif report.outcome.kind not in (OutcomeKind.PLANNED, OutcomeKind.HOLD):
        refusal = report.outcome.reason or report.outcome.kind.value
    return ControlPreview(shown_investment(arguments, report), document, refusal)


def flows(arguments: Arguments) -> tuple[int, ...]:
    """Return the numbers of the deposits to invest; all of them without a number."""
    return tuple(int(value) for _, value in arguments)


def withdraw(
    agent: Agent,
    arguments: Arguments,
    *,
    send: bool,
    confirm: Callable[[WithdrawalReport], bool],
    progress: Callable[[str], None] = lambda _: None,
) -> WithdrawalReport:
    """Withdraw, or resume a withdrawal."""
    control = _given(arguments)
    if (number := control.value("resume")) is not None:
        return money.resume(
            agent,
            int(number),
            to=control.value("to"),
            send=send,
            confirm=confirm,
            progress=progress,
        )
    return money.withdraw(
        agent,
        control.value("amount") or "",
        control.value("in"),
        pro_rata=control.flag("pro-rata"),
        to=control.value("to"),
        send=send,
        confirm=confirm,
        progress=progress,
    )


def stop(
    agent: Agent,
    arguments: Arguments,
    *,
    send: bool,
    confirm: Callable[[ShutdownReport], bool],
    progress: Callable[[str], None] = lambda _: None,
) -> ShutdownReport:
    """Stop the bot, or continue an unfinished stop."""
    control = _given(arguments)
    return shutdown.stop(
        agent,
        to_stable=control.flag("to-stable"),
        send_to=control.value("send-to"),
        send=send,
        confirm=confirm,
        progress=progress,
    )


def edit(
    agent: Agent,
    arguments: Arguments,
    transports: Sequence[Transport] | None,
    *,
    confirm: editing.Confirm | None,
) -> EditReport:
    """Edit the config, unless the edit would permit more than before (Refused)."""
    control, path = _given(arguments), agent.context.loaded.path
    changes = parse_changes(
        control.values("set"), control.values("target"), (), control.values("remove")
    )

    def make(text: str, changed: ConfigChanges) -> str:
        after = apply_changes(text, changed)
        if after == text:  # else it would confirm changes made by hand
            raise Refused(
                "the edit changes nothing", remedy=AT_THE_TERMINAL, code=ControlCode.UNCHANGED
            )
        before = load_config_text(text, path, str(path))
        edited = load_config_text(after, path, "the edited config")
        owners = config_versions.owners_config(before, agent.context.store.configs)
        require_no_widening(before.config, edited.config, owners)
        return after

    return editing.edit(
        path,
        partial(make, changed=changes),
        in_rounds=control.flag("in-slices"),
        sell_first=partial(make, changed=sell_removed_assets(changes)) if changes.removes else None,
        unseen=True,
        how=config_versions.BY_CONTROL,
        confirm=confirm,
        transports=transports,
        clock=agent.context.clock,
    )


def _given(arguments: Arguments) -> Control:
    """Return the arguments as a control, for its accessors."""
    return Control("", ControlKind.EDIT, arguments, "", "", ControlOrigin.CLI, 0, 0)


def shown_step(
    kind: ControlKind, outcome: StepOutcome, arguments: Arguments = (), exact: Arguments = ()
) -> ShownPlan:
    """Return the binding parts of one step's plan."""
    return ShownPlan(kind, arguments, (*_exact_parts(outcome), *exact), _amounts([outcome]))


def shown_investment(arguments: Arguments, report: InvestmentReport) -> ShownPlan:
    """Return the binding parts of an investment: the deposits and their plan."""
    came = tuple(("deposit", f"{flow.token} {flow.delta_raw}") for flow in report.came)
    deposited = ("deposits", "; ".join(sorted(text for _, text in came)))
    active = report.step_input.history.cash_flows.purchase
    exact = (deposited, ("purchase", "" if active is None else active.id))
    if report.outcome is None:
        return ShownPlan(ControlKind.INVEST, arguments, exact, ())
    return shown_step(ControlKind.INVEST, report.outcome, arguments, exact)


def shown_withdrawal(arguments: Arguments, report: WithdrawalReport) -> ShownPlan:
    """Return the binding parts of a withdrawal: payments, their address, and the sale before them."""
    share = TOLERANCE_BPS if _given(arguments).flag("pro-rata") else 0
    paid = tuple(
        (
            f"pay{' native' if payment.native else ''} {payment.token}",
            payment.raw,
            payment.raw * share // BPS,
        )
        for payment in report.payments
    )
    sale = () if report.sale is None else _amounts([report.sale])
    exact = (("to", report.to or ""), ("sale", "no" if report.sale is None else "yes"))
    return ShownPlan(ControlKind.WITHDRAW, arguments, exact, (*sale, *paid))


def shown_stop(arguments: Arguments, report: ShutdownReport) -> ShownPlan:
    """Return the binding parts of a stop: whether it sells, the tokens sold, and the address paid.
    It sells and pays everything, so the amounts are not fixed in advance.
    """
    exact = (("to_stable", str(report.to_stable)), ("to", report.to or ""))
    amounts = _amounts(report.sales, ANY_AMOUNT_BPS)
    return ShownPlan(ControlKind.STOP, arguments, exact, amounts)


def shown_edit(arguments: Arguments, report: EditReport) -> ShownPlan:
    """Return the binding parts of an edit: changed lines, earlier changes by hand, and the tokens of
    its transition. An edit sends nothing.
    """
    exact = (
        ("changes", "\n".join(report.changes)),
        ("by_hand", "\n".join(report.by_hand)),
        ("next", "\n".join(report.following)),
    )
    transition = () if report.transition is None else _amounts([report.transition], ANY_AMOUNT_BPS)
    return ShownPlan(ControlKind.EDIT, arguments, exact, transition)


def _exact_parts(outcome: StepOutcome) -> Arguments:
    """Return the parts of a step that may not change: kind of decision, exit, limit order, and
    changes of a delegate.
    """
    plan = outcome.plan
    others: Sequence[object] = () if plan is None else plan.layer(FuturesPlan).actions
    changes = [
        other
        for other in others
        if not isinstance(other, PerpOrder | MarginDeposit | MarginWithdrawal)
    ]
    return (
        ("decision", type(outcome.decision).__name__),
        ("exit", outcome.decided.exit_token),
        ("order", outcome.decided.order),
        ("delegate", "; ".join(repr(change) for change in changes)),
    )


def _amounts(
    outcomes: Sequence[StepOutcome], share_bps: int = TOLERANCE_BPS
) -> tuple[tuple[str, int, int], ...]:
    """Return (name, amount, tolerance) of everything that the plans move, summed by name."""
    amounts: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        if outcome.plan is None:
            continue
        for name, amount, tolerance in (
            *_swapped(reference_prices(outcome.step_input).by_token, outcome.plan, share_bps),
            *_provided(outcome.plan, share_bps),
            *_futures(outcome.plan, share_bps),
        ):
            before, slack = amounts.get(name, (0, 0))
            amounts[name] = (before + amount, slack + tolerance)
    return tuple((name, *amounts[name]) for name in sorted(amounts))


def _swapped(prices: Mapping[str, Price], plan: Plan, share_bps: int) -> list[tuple[str, int, int]]:
    """Return the changes of the wallet by token, each with the tolerance in that token."""
    moved = plan.turnover * share_bps / BPS
    amounts = []
    for token, raw in plan.wallet_changes().items():
        price = prices.get(token)
        amounts.append((token, raw, floor_int(moved / price) if price else 0))
    return amounts


def _provided(plan: Plan, share_bps: int) -> list[tuple[str, int, int]]:
    provided = []
    for action in map(lp_action, plan.actions):
        amounts = action.fees_raw if isinstance(action, Collect) else action.amounts_raw
        for token, raw in zip((action.token0, action.token1), amounts, strict=True):
            name = f"{type(action).__name__} {action.name} {token}"
            provided.append((name, raw, raw * share_bps // BPS))
    return provided


def _futures(plan: Plan, share_bps: int) -> list[tuple[str, int, int]]:
    amounts = []
    for action in plan.layer(FuturesPlan).actions:
        if isinstance(action, PerpOrder):
            name = f"futures {action.market}{' reduce' if action.is_reduce_only else ''}"
            amounts.append((name, action.size_raw, abs(action.size_raw) * share_bps // BPS))
        elif isinstance(action, MarginDeposit | MarginWithdrawal):
            name = type(action).__name__
            amounts.append((name, action.raw, action.raw * share_bps // BPS))
    return amounts


POLICY_KEYS = frozenset({"trigger", "destination", "cooldown", "only", "risk", "jitter"})
ASSET_KEYS = frozenset({"target", "band", "reserve", *OrderKeys.model_fields})
EXIT_KEYS = frozenset(ExitKeys.model_fields)
AT_THE_TERMINAL = "change it at the terminal: trimtab edit"


def require_no_widening(before: Config, after: Config, owners: Config | None = None) -> None:
    """Raise Refused if the edited config may permit more than the present one (another address,
    contract, token, endpoint or key, a looser limit, or anything else outside the lists above), or
    may stop an exit. A key is exempt if its new value would be permitted as an edit of `owners`, the
    last config that the owner confirmed.
    """
    known = None if owners is None else {*_widening_keys(owners, after)}
    for key in _widening_keys(before, after):
        if known is not None and key not in known:
            continue
        verdict = Verdict("control_edit", key, "targets, triggers, limits of trades", False)
        raise Refused(
            f"{key}: a control may not change it, because it decides what the agent may do, or"
            " whether exits run",
            (verdict,),
            AT_THE_TERMINAL,
            code=ControlCode.WIDENS,
        )


def _widening_keys(before: Config, after: Config) -> Iterator[str]:
    for name in Config.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        match name:
            case "portfolio":
                yield from _portfolio_keys(before, after)
            case "policy":
                yield from _policy_keys(old, new)
            case "limits":
                yield from _limit_keys(old, new)
            case _ if isinstance(old, ConfigTable) and type(old) is type(new):
                yield from (
                    f"{name}.{key}"
                    for key in type(old).model_fields
                    if getattr(old, key) != getattr(new, key)
                )
            case _:
                yield name


def _portfolio_keys(before: Config, after: Config) -> Iterator[str]:
    old, new = before.portfolio, after.portfolio
    for name in type(old).model_fields:
        if name == "assets" or getattr(old, name) == getattr(new, name):
            continue
        if name != "max_live_value" or not _is_lower(new.max_live_value, old.max_live_value):
            yield f"portfolio.{name}"
    known = {asset.symbol: asset for asset in old.assets}
    for asset in new.assets:
        if (mine := known.get(asset.symbol)) is None:
            yield f"portfolio.assets.{asset.symbol}"
            continue
        yield from (
            f"portfolio.assets.{asset.symbol}.{name}"
            for name in AssetTable.model_fields
            if getattr(mine, name) != getattr(asset, name)
            and (name not in ASSET_KEYS or _may_stop_exits(name, mine, asset))
        )


def _may_stop_exits(name: str, old: AssetTable, new: AssetTable) -> bool:
    """Return whether a change of an asset's key may stop its exits: a higher reserve, an exit order
    that is set, or an entry, from whose fill exits count.
    """
    if name == "reserve":
        return Decimal(new.reserve) > Decimal(old.reserve)
    if name in EXIT_KEYS:
        return getattr(old, name) is not None
    return name == "entry" and any(getattr(old, key) is not None for key in EXIT_KEYS)


def _policy_keys(old: Any, new: Any) -> Iterator[str]:
    for name in type(old).model_fields:
        if name not in POLICY_KEYS and getattr(old, name) != getattr(new, name):
            yield f"policy.{name}"


def _limit_keys(old: Any, new: Any) -> Iterator[str]:
    for name in type(old).model_fields:
        mine, theirs = getattr(old, name), getattr(new, name)
        if mine == theirs:
            continue
        if name == "i_accept":
            tighter = set(theirs) <= set(mine)
        elif name == "max_weight":
            tighter = _caps_are_lower(theirs, mine)
        elif name in LIMITS:
            tighter = not LIMITS[name].binds_exits and is_tighter(name, theirs, mine)
        else:
            tighter = _is_lower(theirs, mine)
        if not tighter:
            yield f"limits.{name}"


def _caps_are_lower(new: dict[str, int] | None, old: dict[str, int] | None) -> bool:
    """Return whether no asset's cap is higher than before; None means no caps. A new cap of an asset
    replaces that of "any".
    """
    if new is None:
        return False
    caps = old or {}
    return set(caps) <= set(new) and all(
        cap <= caps.get(name, caps.get(ANY, BPS)) for name, cap in new.items()
    )


def _is_lower(new: Any, old: Any) -> bool:
    """Return whether a cap is lower; None is the loosest."""
    if new is None:
        return False
    return old is None or Decimal(new) < Decimal(old)
