"""Edits of a running bot's config: validate the new text, plan and judge the transition, write
it.
"""

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
from agent.app.describe import pool_names
from agent.app.documents import fill
from agent.app.documents.owner import EditDocument
from agent.app.positions.orders import REACHED_TEXT, is_plausible
from agent.app.settings.changed_assets import (
    NO_NEW_TOKENS,
    NewTokens,
    find_leftovers,
    inspect_new_tokens,
    leftover_lines,
)
from agent.app.start import trust
from agent.chain.rpc import Transport
from agent.config.load import (
    UNSAVED_REMEDY,
    edit_error,
    load_config,
    load_config_text,
)
from agent.config.loaded import LoadedConfig
from agent.config.orders import named_levels, price_level_notes, unsent_alert_notes
from agent.config.redaction import config_diff
from agent.config.schema import Config
from agent.config.writing.config_file import write_config
from agent.config.writing.edits import (
    ConfigChanges,
    apply_changes,
    removals_as_sales,
)
from agent.errors import ConfigError, Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.figures import replace_pool_addresses
from agent.model import (
    LIMITS,
    PORTFOLIO_SUBJECT,
    ExternalTransferKind,
    Halt,
    History,
    Intent,
    LimitUnit,
    OrderTerms,
    SellEntireBalance,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.planning import proposals, requests
from agent.policy.drift import investable_total
from agent.policy.orders.conditional import (
    distance_to_trigger,
    format_order_price,
    is_reached,
    order_name,
    trigger_price,
)
from agent.policy.orders.exits import price_of_subject
from agent.ports import Clock
from agent.reference import is_dollar, reference_prices
from agent.store.store import ConfigVersionStore
from agent.units import BPS, Token, ceil_int, format_percent
from agent.wiring.waiting_proposals import earlier_config_texts

ENFORCED_TRANSITION_GUARDS = ("plan_cost", "daily_loss")
"""Guards that bind the planned transition. All others apply when a transaction is sent."""
FIXED_KEYS = ("chain.chain_id", "wallet.address", "store.url")
"""Keys that an edit may not change: another wallet, chain or store needs a config of its own."""


@dataclass(frozen=True, slots=True)
class EditReport:
    """Result or preview of an edit. `state` is unchanged, planned, declined or written; of a removal
    also removed, or unfinished for a `reason`: the asset then stays at a target of 0 %.
    `transactions` are those of its sales.

    `transition` is one plan to the new targets without turnover limits, None if the config is
    unchanged, but for [alerts] and payout addresses, or the chain cannot be read. `first_rebalance` is the first of `rebalance_count` plans
    within those limits, set if the transition needs several or breaks a limit. `next_commands` are
    the commands to run next.
    """

    changes: tuple[str, ...]
    transition: StepOutcome | None
    first_rebalance: StepOutcome | None
    rebalance_count: int
    warnings: tuple[str, ...]
    next_commands: tuple[str, ...]
    state: str
    backup: str | None = None
    earlier_edits: tuple[str, ...] = ()
    """Earlier manual changes; the confirmation covers them too."""
    new_tokens: NewTokens = NO_NEW_TOKENS
    """Tokens new to the portfolio, with the contracts that the confirmation pins."""
    restart_tables: tuple[str, ...] = ()
    """Changed tables, in brackets, that a run reads only at start: the edit ends a running run."""
    reason: str = ""
    transactions: tuple[Intent, ...] = ()
    next_cycle: StepOutcome | None = None
    """What a cycle of a run would do now with the edited config: as trigger, destination and limits
    say, which is seldom the whole transition. None where `transition` is.
    """
    implausible_levels: tuple[str, ...] = ()
    """New levels of orders so far from the price that a share may have been meant."""


Confirm = Callable[[EditReport, Agent], bool]


@dataclass(frozen=True, slots=True)
class EditOptions:
    """What an edit may do: `in_slices`, break a limit, unless its first slice does;
    `keep_holdings`, leave held tokens unmanaged; `pins_new`, also pin the new contracts of added
    tokens, if no user saw them (`is_unreviewed`) only on local chains. With `by_hand_only` it
    changes nothing, and confirms changes made by hand.
    """

    in_slices: bool = False
    keep_holdings: bool = False
    pins_new: bool = False
    is_unreviewed: bool = False
    by_hand_only: bool = False


SAFE_EDIT = EditOptions()


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A change of the config's text. If the wallet holds more than dust of a removed asset,
    `apply_for_sale`, if given, replaces `apply`.
    """

    apply: Callable[[str], str]
    apply_for_sale: Callable[[str], str] | None = None


def edit(
    path: Path | str,
    text_edit: TextEdit,
    options: EditOptions = SAFE_EDIT,
    *,
    confirm: Confirm | None,
    origin: str = config_versions.EDIT_ORIGIN,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> EditReport:
    """Edit the config's text, validate and plan the result, and write it once `confirm` returns
    True; without `confirm` only report. `origin` is recorded as the way in which this version was
    confirmed. A config that trades on paper alone is planned for, and recorded with, its paper books.

    Raises ConfigError for an invalid text. Raises Refused, and writes nothing, for a transition
    that breaks a limit, would halt the bot, or leaves a held token unmanaged, unless `options`
    allow it.
    """
    config_file = Path(path)
    text_before = config_versions.read_config_text(config_file)
    text_after = text_edit.apply(text_before)
    try:
        config_after = load_config_text(
            text_after, config_file.resolve(), "the edited config", remedy=UNSAVED_REMEDY
        )
    except ConfigError as error:
        raise edit_error(error, text_before, str(config_file)) from None
    config_before = _load_old_config(text_before, config_file)
    if is_on_paper := wiring.trades_on_paper_alone(config_after):
        config_after = replace(config_after, is_paper=True)
        config_before = config_before and replace(config_before, is_paper=True)
    leftovers = find_leftovers(config_before, config_after, transports, clock)
    leftovers_to_sell = [leftover for leftover in leftovers if leftover.is_sellable]
    if leftovers_to_sell and text_edit.apply_for_sale is not None and not options.keep_holdings:
        leftovers = [leftover for leftover in leftovers if leftover.amount is None]
        text_after = text_edit.apply_for_sale(text_before)
        config_after = replace(
            load_config_text(
                text_after, config_file.resolve(), "the edited config", remedy=UNSAVED_REMEDY
            ),
            is_paper=is_on_paper,
        )
    else:
        leftovers_to_sell = []
    holding_lines = leftover_lines(leftovers, options.keep_holdings)
    holding_lines += tuple(
        f"{leftover.amount_text} is sold by the next rebalance; a second trimtab edit --remove"
        f" {leftover.symbol} then removes it, and with --send one command does both"
        for leftover in leftovers_to_sell
    )
    is_unchanged = text_after == text_before
    _require_fixed_keys(config_before, config_after)
    with wiring.open_context(
        config_after, transports, clock, includes_untrusted_pools=True
    ) as context:
        if (
            is_unchanged
            and config_versions.unconfirmed_changes(config_after, context.store.configs) is None
        ):
            return EditReport((), None, None, 0, holding_lines, (), "unchanged")
        trusted_context, new_tokens = inspect_new_tokens(context, config_before)
        contracts_to_pin = (
            new_tokens.unpinned_contracts
            if options.pins_new
            and (not options.is_unreviewed or config_after.config.chain.is_local)
            else ()
        )
        addresses_to_pin = {contract["address"] for contract in contracts_to_pin}
        agent = Agent(trusted_context)
        earlier_edits: tuple[str, ...] = ()
        if config_before is not None and not is_unchanged:
            earlier_edits = (
                config_versions.unconfirmed_changes(config_before, context.store.configs) or ()
            )
        report = _plan_edit(agent, config_before, options.in_slices, is_unchanged, addresses_to_pin)
        if is_unchanged and not options.by_hand_only:
            earlier_edits = report.changes
            report = replace(report, changes=())
        report = replace(
            report,
            earlier_edits=earlier_edits,
            new_tokens=new_tokens,
            warnings=holding_lines + report.warnings + earlier_config_texts(context.store),
        )
        if confirm is None:
            return report
        if not confirm(report, agent):
            return replace(report, state="declined")
        if contracts_to_pin:
            implementations = [
                implementation
                for implementation in new_tokens.implementations
                if implementation.address in addresses_to_pin
            ]
            trust.pin_contracts(context, contracts_to_pin, implementations)
        backup_path = (
            None if is_unchanged else _replace_config(config_file, text_before, text_after)
        )
        try:
            _record_versions(
                context.store.configs, config_before, config_after, is_unchanged, origin
            )
        except BaseException as error:
            if not is_unchanged:
                config_versions.take_back(config_file, text_before, text_after, error)
            raise
        _classify_as_gifts(config_before, config_after, context)
    return replace(report, state="written", backup=backup_path)


def _record_versions(
    config_store: ConfigVersionStore,
    config_before: LoadedConfig | None,
    config_after: LoadedConfig,
    is_unchanged: bool,
    origin: str,
) -> None:
    """Record the confirmed version, preceded by the version that it replaces."""
    if is_unchanged:
        config_versions.record_version(config_after, config_store, config_versions.CONFIRMED_ORIGIN)
        return
    if config_before is not None:
        is_first = config_store.confirmed_digest() is None
        config_versions.record_version(
            config_before,
            config_store,
            config_versions.FIRST_ORIGIN if is_first else config_versions.NOTICED_ORIGIN,
        )
    config_versions.record_version(config_after, config_store, origin)


def accept_edit(report: EditReport, agent: Agent) -> bool:
    """Accept without asking (`--yes`). Raises Refused on a live chain if the file was changed
    manually, because the caller may not have seen those changes.
    """
    return agent.context.config.chain.is_local or _accept_without_earlier_edits(report, agent)


def _accept_without_earlier_edits(report: EditReport, _agent: Agent) -> bool:
    """Accept without asking. Raises Refused if the file was changed manually."""
    if report.earlier_edits:
        raise config_versions.unconfirmed_error(report.earlier_edits)
    return True


def _load_old_config(config_text: str, config_file: Path) -> LoadedConfig | None:
    """Return the config before the edit; None if it is invalid, which the edit may repair."""
    try:
        return load_config_text(config_text, config_file.resolve(), str(config_file))
    except ConfigError:
        return None


def _require_fixed_keys(config_before: LoadedConfig | None, config_after: LoadedConfig) -> None:
    if config_before is None:
        return
    for fixed_key in FIXED_KEYS:
        if _config_value(config_before, fixed_key) != _config_value(config_after, fixed_key):
            raise ConfigError(
                f"{fixed_key}: cannot be changed: the store belongs to the old value",
                "write a new config: trimtab init --config",
            )
    _require_changed_caps(config_before.config, config_after.config)


def _numeraire(config: Config) -> Token:
    return next(
        Token(asset.address, asset.symbol, 18)
        for asset in config.portfolio.assets
        if asset.symbol == config.portfolio.numeraire
    )


def _require_changed_caps(config_before: Config, config_after: Config) -> None:
    """Raise ConfigError if the numeraire changes but a cap counted in it does not."""
    old_numeraire = _numeraire(config_before)
    new_numeraire = _numeraire(config_after)
    if old_numeraire.address == new_numeraire.address or (
        is_dollar(old_numeraire.symbol) and is_dollar(new_numeraire.symbol)
    ):
        return
    caps = [
        (
            "portfolio.max_live_value",
            config_before.portfolio.max_live_value,
            config_after.portfolio.max_live_value,
        )
    ]
    caps += [
        (f"limits.{key}", getattr(config_before.limits, key), getattr(config_after.limits, key))
        for key, limit in LIMITS.items()
        if limit.unit is LimitUnit.COINS
    ]
    unchanged_keys = [
        key for key, old_cap, new_cap in caps if old_cap == new_cap and new_cap is not None
    ]
    if unchanged_keys:
        raise ConfigError(
            f"portfolio.numeraire: {old_numeraire.label} becomes {new_numeraire.label}, and"
            f" {', '.join(unchanged_keys)} would be counted in {new_numeraire.label} unchanged",
            f"set them in the same edit, such as --set {unchanged_keys[0]}=…",
        )


def _config_value(loaded_config: LoadedConfig, key: str) -> object:
    table_name, key_name = key.split(".")
    return getattr(getattr(loaded_config.config, table_name), key_name)


def _changed_lines(config_before: LoadedConfig, config_after: LoadedConfig) -> tuple[str, ...]:
    return config_diff(config_before.redacted_text, config_after.redacted_text)


def _differ_in_no_plan(config_before: Config, config_after: Config) -> bool:
    """Return whether nothing differs but [alerts] and wallet.payout_addresses, on which no plan
    depends.
    """
    wallet = config_after.wallet.model_copy(
        update={"payout_addresses": config_before.wallet.payout_addresses}
    )
    return config_before != config_after and config_before == config_after.model_copy(
        update={"alerts": config_before.alerts, "wallet": wallet}
    )


def _plan_edit(
    agent: Agent,
    config_before: LoadedConfig | None,
    in_slices: bool,
    is_unchanged: bool,
    addresses_to_pin: Collection[str],
) -> EditReport:
    """Return the edit's changes, planned transition and warnings; the confirmation pins the
    `addresses_to_pin` addresses. Raises Refused if the transition is not allowed.
    """
    loaded_config = agent.context.loaded_config
    context = agent.context
    changes: tuple[str, ...] = ()
    restart_tables: list[str] = []
    if is_unchanged:
        changes = config_versions.unconfirmed_changes(loaded_config, context.store.configs) or ()
        restart_tables = config_versions.fixed_tables_in(changes)
    elif config_before is not None:
        changes = _changed_lines(config_before, loaded_config)
        restart_tables = config_versions.fixed_tables_changed(
            config_before.config, loaded_config.config
        )
    pinned_addresses = context.store.trust.pins().keys()
    contract_addresses = (*context.execution.pinned, *(pool.contract for pool in context.pools))
    unpinned_addresses = [
        address for address in contract_addresses if address not in pinned_addresses
    ]
    confirmed_addresses = set(context.store.requests.payout_addresses())
    next_commands: tuple[str, ...] = ()
    if (
        set(unpinned_addresses) - set(addresses_to_pin)
        or set(loaded_config.config.wallet.payout_addresses) - confirmed_addresses
    ):
        next_commands = ("trimtab trust: contracts or payout addresses are unconfirmed",)
    if restart_tables:
        restart_reason = (
            f"it reads {', '.join(restart_tables)} only at start, and this edit ends it"
        )
        next_commands += (f"start a running trimtab run again: {restart_reason}",)
    if config_before is not None and _differ_in_no_plan(config_before.config, loaded_config.config):
        return EditReport(
            changes,
            None,
            None,
            0,
            (),
            next_commands,
            "planned",
            restart_tables=tuple(restart_tables),
        )
    transition = evaluation.evaluate(
        _unlimited_readers(context.readers), requests.rebalance_wholly_to_targets
    )
    if isinstance(transition.decision, Halt):
        raise Refused(
            f"the edited config would halt: {transition.reason}",
            transition.failed_verdicts,
            "correct the edit, or, if trimtab status shows this halt without it too, wait until it"
            " ends (trimtab doctor)",
        )
    first_rebalance = None
    slice_count = _count_slices(transition, context.limits.turnover_bps)
    broken_limits = _broken_limits(transition)
    if broken_limits or slice_count > 1:
        first_rebalance = evaluation.evaluate(context.readers, requests.rebalance_to_targets)
    if broken_limits and in_slices and first_rebalance is not None:
        broken_limits = _broken_limits(first_rebalance)
    if broken_limits:
        broken_limits_text = "; ".join(
            f"{verdict.guard} measured {verdict.measured_text}, limit {verdict.limit}"
            for verdict in broken_limits
        )
        remedy = "change less at a time, raise the limit, or wait"
        if not in_slices:
            remedy += "; --in-slices does it in slices"
        raise Refused(f"the transition breaks a limit: {broken_limits_text}", broken_limits, remedy)
    level_notes_before = (
        {} if config_before is None else price_level_notes(config_before.config.portfolio)
    )
    warnings = tuple(
        f"{key}: {note}"
        for key, note in price_level_notes(loaded_config.config.portfolio).items()
        if level_notes_before.get(key) != note
    )
    levels_before = (
        set()
        if is_unchanged or config_before is None
        else named_levels(config_before.config.portfolio)
    )
    changed_order_names = {
        changed_order_name
        for changed_order_name, _ in named_levels(loaded_config.config.portfolio) - levels_before
    }
    warnings += unsent_alert_notes(loaded_config.config, changed_order_names)
    order_notes, implausible_levels = _order_notes(
        transition.step_input,
        {order.terms for order in context.store.orders.orders_and_version()[0]},
        changed_order_names,
    )
    warnings += order_notes
    if order_notes:
        next_commands += (
            "trimtab rebalance, unless a trimtab run is on: a new order watches no price until a cycle"
            " arms it",
        )
    pool_labels = pool_names(transition.step_input.snapshot, transition.step_input.portfolio)
    warnings += tuple(
        replace_pool_addresses(note, pool_labels)
        for note in _transition_notes(transition, unpinned_addresses)
    )
    return EditReport(
        changes,
        transition,
        first_rebalance,
        slice_count,
        warnings,
        next_commands,
        "planned",
        restart_tables=tuple(restart_tables),
        implausible_levels=implausible_levels,
        next_cycle=evaluation.evaluate(context.readers, proposals.propose_rebalance),
    )


def _broken_limits(outcome: StepOutcome) -> list[Verdict]:
    return [
        verdict
        for verdict in outcome.failed_verdicts
        if verdict.guard in ENFORCED_TRANSITION_GUARDS
    ]


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
                stop_reason="",
                cash_flows=replace(
                    step.history.cash_flows, pending_payments=(), unexplained_transfers=()
                ),
            ),
        )

    return replace(readers, assemble=assemble)


def _count_slices(transition: StepOutcome, turnover_limit_bps: int | None) -> int:
    """Return the number of rebalances within limits.turnover that the transition takes."""
    if transition.plan is None:
        return 0
    if turnover_limit_bps is None:
        return 1
    total_value = investable_total(transition.decision_result.drifts) or Fraction(1)
    return max(1, ceil_int(transition.plan.turnover * BPS / (turnover_limit_bps * total_value)))


def _transition_notes(
    transition: StepOutcome, unpinned_addresses: Sequence[str]
) -> tuple[str, ...]:
    """Return notes on guards that would refuse now, and on assets that stay off target."""
    notes = [
        f"{verdict.guard} would refuse now: {verdict.measured_text}, limit {verdict.limit}"
        for verdict in transition.failed_verdicts
        if not (unpinned_addresses and verdict.guard == "allowlist")
    ]
    if transition.plan is not None:
        notes += [
            f"{skipped_trade.subject}: {skipped_trade.why}"
            for skipped_trade in transition.plan.skipped
        ]
    elif transition.kind is OutcomeKind.REFUSED:
        notes.append(f"no plan leads to these targets now: {transition.reason}")
    return tuple(notes)


def _order_notes(
    step: StepInput, stored_terms: Collection[OrderTerms], changed_order_names: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return where the changed orders that the store does not have would trigger if armed now, and
    those of the notes whose level is implausibly far from the price.
    """
    references = reference_prices(step)
    notes = []
    implausible_levels = []
    for order in step.history.orders.states:
        order_label = order_name(step.portfolio, order)
        if order_label not in changed_order_names or order.terms in stored_terms:
            continue
        level = trigger_price(order)
        price = price_of_subject(step.history.orders, references, order.token)
        distance = None if price is None else distance_to_trigger(order, price)
        level_text = "its level is set when a cycle arms it"
        if level is not None:
            level_text = f"at {format_order_price(step.portfolio, order.token, level)}"
        if price is not None and distance is not None:
            level_text += (
                f", {format_percent(abs(distance))} {'above' if distance > 0 else 'below'} the present"
                f" {'value' if order.token == PORTFOLIO_SUBJECT else 'price'}"
            )
            if is_reached(order, price) and not order.is_exit:  # such an exit waits for its entry
                level_text += f", {REACHED_TEXT}"
        notes.append(f"{order_label}: {level_text}")
        if distance is not None and not is_plausible(distance):
            implausible_levels.append(notes[-1])
    return tuple(notes), tuple(implausible_levels)


def _classify_as_gifts(
    config_before: LoadedConfig | None, config_after: LoadedConfig, context: wiring.AgentContext
) -> None:
    """Classify open deposits of removed assets as gifts: they stay in the wallet and need no
    explanation.
    """
    if config_before is None:
        return
    removed_addresses = {asset.address for asset in config_before.config.portfolio.assets}
    removed_addresses -= {asset.address for asset in config_after.config.portfolio.assets}
    for transfer in context.store.balances.unexplained_transfers():
        if transfer.token in removed_addresses and transfer.delta_raw > 0:
            context.store.balances.classify(
                transfer.id, ExternalTransferKind.GIFT, context.clock.now_s()
            )


def _replace_config(config_file: Path, text_before: str, text_after: str) -> str:
    """Replace the text atomically and keep the old one as .bak; both files are owner-only."""
    backup_path = config_file.with_name(f"{config_file.name}.bak")
    if config_versions.read_config_text(config_file) != text_before:
        raise Refused(
            f"{config_file} changed during the edit; nothing was written",
            remedy="check the file and edit again",
        )
    for written_path, written_text in ((backup_path, text_before), (config_file, text_after)):
        write_config(written_path, written_text, 0o600)
    return str(backup_path)


MAX_SALES = 12
"""Maximum number of sale plans for one asset."""


@dataclass(frozen=True, slots=True)
class RemovalSale:
    """Sends the sale of removed assets, each transaction once it is confirmed."""

    confirm: Callable[[Agent, StepOutcome], bool]
    progress: Progress = ignore_progress


def remove_assets(
    path: Path | str,
    changes: ConfigChanges,
    options: EditOptions = SAFE_EDIT,
    *,
    confirm: Confirm | None,
    sale: RemovalSale | None = None,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> EditReport:
    """Remove the assets of `changes.removed_symbols`, and pin new contracts. Held assets get a
    target of 0 % first; with a `sale` they are sold at once and then removed, unless the file was
    changed meanwhile. Raises the same errors as `edit`, and Refused while the bot is stopped.
    """

    def run_edit(
        edit_changes: ConfigChanges, confirm_edit: Confirm | None, *, pins_new: bool
    ) -> EditReport:
        return edit(
            path,
            TextEdit(
                partial(apply_changes, changes=edit_changes),
                partial(apply_changes, changes=removals_as_sales(edit_changes)),
            ),
            replace(options, pins_new=pins_new),
            confirm=confirm_edit,
            transports=transports,
            clock=clock,
        )

    first_report = run_edit(changes, confirm, pins_new=True)
    remaining_symbols = [
        symbol for symbol in _asset_symbols(path) if symbol in changes.removed_symbols
    ]
    if not remaining_symbols and first_report.state == "written":
        return replace(first_report, state="removed")
    if sale is None or first_report.state in ("planned", "declined"):
        return first_report
    sent_intents: list[Intent] = []
    is_sold_out, sale_reason = _sell_out(
        path, remaining_symbols, sale, transports, clock, sent_intents
    )
    last_report = first_report
    if is_sold_out:
        removal = ConfigChanges(removed_symbols=tuple(remaining_symbols))
        try:
            last_report = run_edit(removal, _accept_without_earlier_edits, pins_new=False)
        except Refused as refusal:
            sale_reason = str(refusal)
    if set(_asset_symbols(path)) & set(remaining_symbols):
        remove_options = " ".join(f"--remove {symbol}" for symbol in remaining_symbols)
        unfinished_reason = (
            f"{', '.join(remaining_symbols)} stays at a target of 0 %: {sale_reason}; trimtab edit {remove_options} --send"
            " continues"
        )
        return replace(
            first_report,
            state="unfinished",
            reason=unfinished_reason,
            transactions=tuple(sent_intents),
        )
    return replace(
        last_report,
        state="removed",
        changes=first_report.changes + last_report.changes,
        warnings=tuple(dict.fromkeys(last_report.warnings)),
        transactions=tuple(sent_intents),
    )


def _asset_symbols(path: Path | str) -> list[str]:
    return [asset.symbol for asset in load_config(path).config.portfolio.assets]


def _sell_out(
    path: Path | str,
    symbols: Sequence[str],
    sale: RemovalSale,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
    sent_intents: list[Intent],
) -> tuple[bool, str]:
    """Sell each asset as far as possible; return whether all were sold, and the last reason."""
    last_reason = ""
    with open_agent(path, transports=transports, clock=clock) as agent:
        agent.require_not_stopped()
        context = agent.context
        with wiring.open_transactor(
            context, lambda outcome: sale.confirm(agent, outcome), sale.progress
        ) as transactor:
            for symbol in symbols:
                token_address = agent.token(symbol, "--remove").address
                for _ in range(MAX_SALES):
                    outcome = engine.run_cycle(
                        context.readers, SellEntireBalance(token_address), context.store, transactor
                    )
                    sent_intents += outcome.transactions
                    last_reason = outcome.reason
                    if outcome.kind is OutcomeKind.HOLD:
                        break
                    if outcome.kind is not OutcomeKind.DONE:
                        return False, last_reason
    return True, last_reason


def edit_document(report: EditReport) -> EditDocument:
    """Return the document of an edit."""
    return fill(EditDocument, report)
