"""Edits of a running bot's config: validate the new text, plan and judge the transition, write it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from agent import engine, wiring
from agent.app import config_versions
from agent.app.agent import Agent, open_agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.describe import pool_names, replace_pool_addresses
from agent.app.documents import fill
from agent.app.documents.owner import EditDocument
from agent.app.documents.plans import transaction
from agent.app.settings.changed_assets import (
    NO_NEW_TOKENS,
    NewTokens,
    find_leftovers,
    inspect_new_tokens,
    leftover_lines,
)
from agent.app.start import setup
from agent.chain.rpc import Transport
from agent.config.load import NO_CONFIG, load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.orders import price_level_notes
from agent.config.redaction import config_diff
from agent.config.schema import Config
from agent.config.writing.edits import (
    ConfigChanges,
    apply_changes,
    sell_removed_assets,
    write_config,
)
from agent.errors import ConfigError, Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import (
    LIMITS,
    ExternalTransferKind,
    Halt,
    History,
    Intent,
    LimitUnit,
    SellEntireBalance,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.planning import requests
from agent.policy.drift import investable_total
from agent.ports import Clock
from agent.reference import is_dollar
from agent.store.files.locks import require_private
from agent.store.store import ConfigVersionStore
from agent.units import BPS, Token, ceil_int

ENFORCED_TRANSITION_GUARDS = ("plan_cost", "daily_loss")
"""Guards that bind the planned transition. All others apply when a transaction is sent."""
FIXED = ("chain.chain_id", "wallet.address", "store.url")
"""Keys that an edit may not change: another wallet, chain or store needs a config of its own."""


@dataclass(frozen=True, slots=True)
class EditReport:
    """Result or preview of an edit. `state` is unchanged, planned, declined or written.

    `transition` is one plan to the new targets without turnover limits, None if the config is
    unchanged or the chain cannot be read. `first` is the first of `rounds` plans within those
    limits, set if the transition needs several or breaks a limit. `following` are the commands to
    run next.
    """

    changes: tuple[str, ...]
    transition: StepOutcome | None
    first: StepOutcome | None
    rounds: int
    warnings: tuple[str, ...]
    following: tuple[str, ...]
    state: str
    backup: str | None = None
    by_hand: tuple[str, ...] = ()
    """Earlier manual changes; the confirmation covers them too."""
    new_tokens: NewTokens = NO_NEW_TOKENS
    """Tokens new to the portfolio, with the contracts that the confirmation pins."""
    restart: tuple[str, ...] = ()
    """Changed tables, in brackets, that a run reads only at start: the edit ends a running run."""


Confirm = Callable[[EditReport, Agent], bool]


def edit(  # noqa: PLR0913
    path: Path | str,
    make: Callable[[str], str],
    *,
    in_rounds: bool = False,
    keep_holdings: bool = False,
    sell_first: Callable[[str], str] | None = None,
    pins: bool = False,
    unseen: bool = False,
    by_hand_only: bool = False,
    how: str = config_versions.EDITED,
    confirm: Confirm | None,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> EditReport:
    """Apply `make` to the config's text, validate and plan the result, and write it once `confirm`
    returns True; without `confirm` only report. With `by_hand_only` it confirms changes made by
    hand, and `make` changes nothing.

    `pins` also pins the new contracts of added tokens; if `unseen` (they were not shown to the
    caller), only on local chains. If the wallet holds more than dust of a removed asset,
    `sell_first` replaces `make`, if given. Raises ConfigError for an invalid text. Raises Refused,
    and writes nothing, for a transition that breaks a limit (with `in_rounds` only if its first
    slice does), would halt the bot, or leaves a held token unmanaged (unless `keep_holdings`).
    """
    file = Path(path)
    text = _read(file)
    after_text = make(text)
    after = load_config_text(after_text, file.resolve(), "the edited config")
    before = _before(text, file)
    leftovers = find_leftovers(before, after, transports, clock)
    to_sell = [leftover for leftover in leftovers if not leftover.dust]
    if to_sell and sell_first is not None and not keep_holdings:
        leftovers, after_text = [], sell_first(text)
        after = load_config_text(after_text, file.resolve(), "the edited config")
    else:
        to_sell = []
    holding_lines = leftover_lines(leftovers, keep_holdings)
    holding_lines += tuple(
        f"{leftover.named} is sold by the next rebalance; a second trimtab edit --remove"
        f" {leftover.symbol} then removes it, and with --send one command does both"
        for leftover in to_sell
    )
    same = after_text == text
    _require_fixed(before, after)
    with wiring.open_context(after, transports, clock, untrusted_pools=True) as context:
        if same and config_versions.unconfirmed_changes(after, context.store.configs) is None:
            return EditReport((), None, None, 0, holding_lines, (), "unchanged")
        seen, new_tokens = inspect_new_tokens(context, before)
        pinned = new_tokens.new if pins and (not unseen or after.config.chain.local) else ()
        addresses = {row["address"] for row in pinned}
        agent = Agent(seen)
        by_hand: tuple[str, ...] = ()
        if before is not None and not same:
            by_hand = config_versions.unconfirmed_changes(before, context.store.configs) or ()
        report = _planned_edit(agent, before, in_rounds, same, addresses)
        if same and not by_hand_only:
            by_hand, report = report.changes, replace(report, changes=())
        report = replace(
            report,
            by_hand=by_hand,
            new_tokens=new_tokens,
            warnings=holding_lines + report.warnings,
        )
        if confirm is None:
            return report
        if not confirm(report, agent):
            return replace(report, state="declined")
        if pinned:
            backing = [proxy for proxy in new_tokens.backing if proxy[1] in addresses]
            setup.pin_contracts(context, pinned, backing)
        backup = None if same else _write(file, text, after_text)
        _record_versions(context.store.configs, before, after, same, how)
        _dismiss_transfers(before, after, context)
    return replace(report, state="written", backup=backup)


def _record_versions(
    configs: ConfigVersionStore,
    before: LoadedConfig | None,
    after: LoadedConfig,
    same: bool,
    how: str,
) -> None:
    """Record the confirmed version, preceded by the version that it replaces."""
    if same:
        config_versions.record_version(after, configs, config_versions.CONFIRMED)
        return
    if before is not None:
        first = configs.confirmed() is None
        config_versions.record_version(
            before, configs, config_versions.FIRST if first else config_versions.NOTICED
        )
    config_versions.record_version(after, configs, how)


def accept_edit(report: EditReport, agent: Agent) -> bool:
    """Accept without asking (`--yes`). Raises Refused on a live chain if the file was changed
    manually, because the caller may not have seen those changes.
    """
    if report.by_hand and not agent.context.config.chain.local:
        raise config_versions.unconfirmed_error(report.by_hand)
    return True


def _read(file: Path) -> str:
    require_private(file, "config")
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file", NO_CONFIG) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def _before(text: str, file: Path) -> LoadedConfig | None:
    """Return the config before the edit; None if it is invalid, which the edit may repair."""
    try:
        return load_config_text(text, file.resolve(), str(file))
    except ConfigError:
        return None


def _require_fixed(before: LoadedConfig | None, after: LoadedConfig) -> None:
    if before is None:
        return
    for key in FIXED:
        if _value(before, key) != _value(after, key):
            raise ConfigError(
                f"{key}: cannot be changed: the store belongs to the old value",
                "write a new config: trimtab init --config",
            )
    _require_converted(before.config, after.config)


def _numeraire(config: Config) -> Token:
    return next(
        Token(asset.address, asset.symbol, 18)
        for asset in config.portfolio.assets
        if asset.symbol == config.portfolio.numeraire
    )


def _require_converted(before: Config, after: Config) -> None:
    """Raise ConfigError if the numeraire changes but a cap counted in it does not."""
    old_unit, new_unit = _numeraire(before), _numeraire(after)
    if old_unit.address == new_unit.address or (is_dollar(old_unit) and is_dollar(new_unit)):
        return
    caps = [
        (
            "portfolio.max_live_value",
            before.portfolio.max_live_value,
            after.portfolio.max_live_value,
        )
    ]
    caps += [
        (f"limits.{key}", getattr(before.limits, key), getattr(after.limits, key))
        for key, limit in LIMITS.items()
        if limit.unit is LimitUnit.COINS
    ]
    unchanged = [key for key, old, new in caps if old == new and new is not None]
    if unchanged:
        raise ConfigError(
            f"portfolio.numeraire: {old_unit.label} becomes {new_unit.label}, and"
            f" {', '.join(unchanged)} would be counted in {new_unit.label} unchanged",
            f"set them in the same edit, such as --set {unchanged[0]}=…",
        )


def _value(loaded: LoadedConfig, key: str) -> object:
    table, name = key.split(".")
    return getattr(getattr(loaded.config, table), name)


def _planned_edit(
    agent: Agent, before: LoadedConfig | None, in_rounds: bool, same: bool, pinned: Collection[str]
) -> EditReport:
    """Return the edit's changes, planned transition and warnings; the confirmation pins the
    `pinned` addresses. Raises Refused if the transition is not allowed.
    """
    loaded, context = agent.context.loaded, agent.context
    changes: tuple[str, ...] = ()
    restart: list[str] = []
    if same:
        changes = config_versions.unconfirmed_changes(loaded, context.store.configs) or ()
        restart = config_versions.fixed_tables_in(changes)
    elif before is not None:
        changes = config_diff(before.text, loaded.text)
        restart = config_versions.fixed_tables_changed(before.config, loaded.config)
    transition = evaluation.evaluate(
        _unlimited_readers(context.readers), requests.rebalance_wholly_to_targets
    )
    if isinstance(transition.decision, Halt):
        raise Refused(
            f"the edited config would halt: {transition.reason}",
            transition.failing,
            "correct the edit, or run trimtab doctor",
        )
    first, rounds = None, _rounds(transition, context.limits.turnover_bps)
    broken = _broken_limits(transition)
    if broken or rounds > 1:
        first = evaluation.evaluate(context.readers, requests.rebalance_to_targets)
    if broken and in_rounds and first is not None:
        broken = _broken_limits(first)
    if broken:
        message = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in broken)
        remedy = "change less at a time, raise the limit, or wait"
        if not in_rounds:
            remedy += "; --in-slices does it in slices"
        raise Refused(f"the transition breaks a limit: {message}", broken, remedy)
    pins = {pin.address for pin in context.store.trust.pins()}
    contracts = (*context.execution.pinned, *(pool.address for pool in context.pools))
    unpinned = [address for address in contracts if address not in pins]
    confirmed = set(context.store.requests.payout_addresses())
    following: tuple[str, ...] = ()
    if set(unpinned) - set(pinned) or set(loaded.config.wallet.payout_addresses) - confirmed:
        following = ("trimtab trust: contracts or payout addresses are unconfirmed",)
    if restart:
        ended = f"it reads {', '.join(restart)} only at start, and this edit ends it"
        following += (f"start a running trimtab run again: {ended}",)
    known = {} if before is None else price_level_notes(before.config.portfolio)
    warnings = tuple(
        f"{key}: {note}"
        for key, note in price_level_notes(loaded.config.portfolio).items()
        if known.get(key) != note
    )
    names = pool_names(transition.step_input.snapshot, transition.step_input.portfolio)
    warnings += tuple(replace_pool_addresses(note, names) for note in _notes(transition, unpinned))
    return EditReport(
        changes,
        transition,
        first,
        rounds,
        warnings,
        following,
        "planned",
        restart=tuple(restart),
    )


def _broken_limits(outcome: StepOutcome) -> list[Verdict]:
    return [verdict for verdict in outcome.failing if verdict.guard in ENFORCED_TRANSITION_GUARDS]


def _unlimited_readers(readers: StepReaders) -> StepReaders:
    """Return readers without turnover limits and temporary stops, so that one plan covers the whole
    transition.
    """

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        step = readers.assemble(snapshot, history)
        limits = replace(step.limits, turnover_bps=None, daily_turnover_bps=None)
        return replace(
            step,
            limits=limits,
            history=replace(
                step.history,
                stopped="",
                cash_flows=replace(step.history.cash_flows, claims=(), unexplained=()),
            ),
        )

    return replace(readers, assemble=assemble)


def _rounds(transition: StepOutcome, limit_bps: int | None) -> int:
    """Return the number of rebalances within limits.turnover that the transition takes."""
    if transition.plan is None:
        return 0
    if limit_bps is None:
        return 1
    total = investable_total(transition.decided.drifts) or Fraction(1)
    return max(1, ceil_int(transition.plan.turnover * BPS / (limit_bps * total)))


def _notes(transition: StepOutcome, unpinned: Sequence[str]) -> tuple[str, ...]:
    """Return notes on guards that would refuse now, and on assets that stay off target."""
    notes = [
        f"{v.guard} would refuse now: {v.measured}, limit {v.limit}"
        for v in transition.failing
        if not (unpinned and v.guard == "allowlist")
    ]
    if transition.plan is not None:
        notes += [f"{item.what}: {item.why}" for item in transition.plan.skipped]
    elif transition.kind is OutcomeKind.REFUSED:
        notes.append(f"no plan leads to these targets now: {transition.reason}")
    return tuple(notes)


def _dismiss_transfers(
    before: LoadedConfig | None, after: LoadedConfig, context: wiring.AgentContext
) -> None:
    """Classify open deposits of removed assets as gifts: they stay in the wallet and need no
    explanation.
    """
    if before is None:
        return
    removed = {asset.address for asset in before.config.portfolio.assets}
    removed -= {asset.address for asset in after.config.portfolio.assets}
    for flow in context.store.balances.transfers(1_000):
        if flow.is_open and flow.token in removed and flow.delta_raw > 0:
            context.store.balances.classify(
                flow.id, ExternalTransferKind.GIFT, context.clock.now_s()
            )


def _write(file: Path, before: str, after: str) -> str:
    """Replace the text atomically and keep the old one as .bak; both files are owner-only."""
    backup = file.with_name(f"{file.name}.bak")
    if _read(file) != before:
        raise Refused(
            f"{file} changed during the edit; nothing was written",
            remedy="check the file and edit again",
        )
    for place, text in ((backup, before), (file, after)):
        write_config(place, text, 0o600)
    return str(backup)


MAX_SALES = 12
"""Maximum number of sale plans for one asset."""


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """Result of a removal. `edited` is the config edit. `state` is the edit's, or removed, or
    unfinished with the `reason`: the asset then stays at a target of 0 %.
    """

    edited: EditReport
    state: str
    reason: str
    transactions: tuple[Intent, ...] = ()


ConfirmSale = Callable[[Agent, StepOutcome], bool]


def remove(  # noqa: PLR0913
    path: Path | str,
    changes: ConfigChanges,
    *,
    in_rounds: bool = False,
    keep_holdings: bool = False,
    unseen: bool = False,
    confirm: Confirm | None,
    send: bool = False,
    confirm_sale: ConfirmSale,
    progress: Progress = ignore_progress,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> RemovalReport:
    """Remove the assets of `changes.removes`. Held assets get a target of 0 % first; with `send` they
    are sold at once and then removed. Raises the same errors as `edit`, and Refused while the bot
    is stopped.
    """

    def change(changed: ConfigChanges, confirmed: Confirm | None) -> EditReport:
        return edit(
            path,
            partial(apply_changes, changes=changed),
            in_rounds=in_rounds,
            keep_holdings=keep_holdings,
            sell_first=partial(apply_changes, changes=sell_removed_assets(changed)),
            pins=True,
            unseen=unseen,
            confirm=confirmed,
            transports=transports,
            clock=clock,
        )

    first = change(changes, confirm)
    symbols = [symbol for symbol in _symbols(path) if symbol in changes.removes]
    if not symbols and first.state == "written":
        return RemovalReport(first, "removed", "")
    if not send or first.state in ("planned", "declined"):
        return RemovalReport(first, first.state, "")
    sent: list[Intent] = []
    sold, why = _sell_out(path, symbols, confirm_sale, progress, transports, clock, sent)
    last = first
    if sold:
        last = change(ConfigChanges(removes=tuple(symbols)), lambda _edit, _agent: True)
    if set(_symbols(path)) & set(symbols):
        options = " ".join(f"--remove {symbol}" for symbol in symbols)
        message = (
            f"{', '.join(symbols)} stays at a target of 0 %: {why}; trimtab edit {options} --send"
            " continues"
        )
        return RemovalReport(first, "unfinished", message, tuple(sent))
    joined = replace(
        last, changes=first.changes + last.changes, warnings=tuple(dict.fromkeys(last.warnings))
    )
    return RemovalReport(joined, "removed", "", tuple(sent))


def _symbols(path: Path | str) -> list[str]:
    return [asset.symbol for asset in load_config(path).config.portfolio.assets]


def _sell_out(
    path: Path | str,
    symbols: Sequence[str],
    confirm: ConfirmSale,
    progress: Progress,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
    sent: list[Intent],
) -> tuple[bool, str]:
    """Sell each asset as far as possible; return whether all were sold, and the last reason."""
    message = ""
    with open_agent(path, transports=transports, clock=clock) as agent:
        agent.require_not_stopped()
        context = agent.context
        with wiring.open_actors(
            context, lambda outcome: confirm(agent, outcome), progress
        ) as actors:
            for symbol in symbols:
                token = agent.token(symbol, "--remove").address
                for _ in range(MAX_SALES):
                    done = engine.run_cycle(
                        context.readers, SellEntireBalance(token), context.store, actors
                    )
                    sent += done.transactions
                    message = done.reason
                    if done.kind is OutcomeKind.HOLD:
                        break
                    if done.kind is not OutcomeKind.DONE:
                        return False, message
    return True, message


def edit_document(report: EditReport) -> EditDocument:
    """Return the document of an edit."""
    return fill(EditDocument, report, reason="", transactions=[])


def removal_document(report: RemovalReport) -> EditDocument:
    """Return the document of a removal, with its transactions."""
    sent = [transaction(intent) for intent in report.transactions]
    return {
        **edit_document(report.edited),
        "state": report.state,
        "reason": report.reason,
        "transactions": sent,
    }
