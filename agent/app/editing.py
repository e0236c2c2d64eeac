"""Edit the config of a running bot: validate the new text, plan and judge the transition, then
write it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import engine, wiring
from agent.app import config_versions
from agent.app.agent import Agent, Progress, ignore_progress, open_agent
from agent.app.describe import pool_names, replace_pool_addresses
from agent.app.start import setup
from agent.app.start.checks import screen_tokens
from agent.chain.rpc import Transport
from agent.config import load
from agent.config.edits import ConfigChanges, apply_changes, sell_removed_assets, write_config
from agent.config.load import NO_CONFIG, LoadedConfig, load_config, load_config_text
from agent.config.orders import price_level_notes
from agent.config.schema import Config
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import (
    LIMITS,
    CodeHash,
    ExternalTransferKind,
    Halt,
    History,
    Intent,
    LimitUnit,
    Pool,
    PriceSource,
    SellEntireBalance,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.planning import requests
from agent.policy import minimum
from agent.policy.drift import investable_total
from agent.ports import Clock
from agent.reference import ReferencePrices, reference_prices
from agent.reference import prices as means
from agent.reference.checks import is_dollar
from agent.store.files.locks import require_private
from agent.units import BPS, Token, ceil_int, decimal_text, value_text

# --- Tokens that an edit adds: pools with liquidity and code, screen results, and price sources.

if TYPE_CHECKING:
    from agent.app.documents.owner import ContractDocument


@dataclass(frozen=True, slots=True)
class NewTokens:
    """Tokens that an edit adds.

    `told` are lines about each: price with source, and screening result. `rows` are the contracts
    as `trimtab trust` shows them, pools with their `liquidity` in the numeraire; `backing` are
    implementations of proxies.
    """

    told: tuple[str, ...] = ()
    rows: tuple[ContractDocument, ...] = ()
    backing: tuple[setup.Backing, ...] = ()

    @property
    def new(self) -> tuple[ContractDocument, ...]:
        """Return contracts that the confirmation pins; one pinned with other code needs `trimtab
        trust`.
        """
        return tuple(row for row in self.rows if row["state"] == "new")


NO_NEW_TOKENS = NewTokens()


def inspect_new_tokens(
    context: wiring.AgentContext, before: LoadedConfig | None
) -> tuple[wiring.AgentContext, NewTokens]:
    """Return tokens that the edit adds to `before`, and the context with prices by their pools, as
    if confirmed. Raises Refused for a token without a price, a failed screen, or an address without
    code.
    """
    known = (
        {one.address for one in before.config.portfolio.listed}
        if before is not None
        else set(context.tokens)
    )
    tokens = [address for address in context.tokens if address not in known]
    if not tokens:
        return context, NO_NEW_TOKENS
    snapshot = context.reader.snapshot()
    theirs = {
        pool.address for pool in context.pools if {pool.token0, pool.token1} & set(tokens)
    } | set(tokens)
    found, backing, empty = setup.list_contracts(context, snapshot)
    backing = [one for one in backing if one[0] in tokens]
    theirs |= {address for _, address, _ in backing}
    setup.require_code([one for one in empty if any(address in one.measured for address in theirs)])
    rows = [row for row in found if row["address"] in theirs]
    coming = [CodeHash(row["address"], row["code_hash"]) for row in rows if row["state"] == "new"]
    context = replace(
        context,
        reference=replace(
            context.reference, mean_pools=(*(context.reference.mean_pools or ()), *coming)
        ),
    )
    step = context.readers.step_input_at(snapshot)
    references = reference_prices(step)
    _require_prices(context, references, tokens)
    notes = [_priced(step, references, token, rows) for token in tokens]
    labels = {context.portfolio.token(token).label for token in tokens}
    for label, one in screen_tokens(context, step):
        if label in labels and not one.finding.accepted:
            verdict = Verdict("token_screen", f"{label}: {one.why}", "it moves as it should", False)
            raise Refused(f"{label} is not taken in: {one.why}", (verdict,), one.finding.remedy)
        notes += [f"{label} was tried: {one.why}"] if label in labels else []
    pools = {pool.address: pool for pool in step.snapshot.pools}
    shown = tuple(
        row | {"liquidity": _liquidity(context, references, pools.get(row["address"]))}
        for row in rows
    )
    return context, NewTokens(tuple(notes), shown, tuple(backing))


def _require_prices(
    context: wiring.AgentContext, references: ReferencePrices, tokens: list[str]
) -> None:
    lacking = [one for one in references.unpriced if one.token in tokens]
    if lacking:
        message = "; ".join(f"{one.label}: {one.why}" for one in lacking)
        raise Refused(
            f"there is no price for {message}",
            tuple(
                Verdict("price", f"{one.label}: {one.why}", "a source of reference.kind", False)
                for one in lacking
            ),
            f"name its feed in dollars: --set portfolio.assets.{lacking[0].label}.feed=0x…; "
            'or let pools price it: reference.kind = ["feed", "twap"], see trimtab oracle',
        )


def _priced(
    step: StepInput, references: ReferencePrices, token: str, rows: Sequence[ContractDocument]
) -> str:
    found, one, numeraire = (
        references.prices[token],
        step.portfolio.token(token),
        step.portfolio.numeraire,
    )
    counted = {
        pool.address
        for pool in step.snapshot.pools
        if token in (pool.token0, pool.token1)
        and pool.keeps_observations
        and not means.twap_rejection(step, pool)
    }
    names = ", ".join(row["what"] for row in rows if row["address"] in counted)
    via = f" (its own that count: {names})" if found.source is PriceSource.TWAP else ""
    price = value_text(found.price * 10**one.decimals, numeraire.decimals, 6)
    return (
        f"{one.label} is priced by {found.source.value}: {found.detail}{via}; now {price}"
        f" {numeraire.label}"
    )


def _liquidity(context: wiring.AgentContext, references: ReferencePrices, pool: Pool | None) -> str:
    """Depth of the pool on both sides, in the numeraire if both have a price; empty without a
    pool.
    """
    if pool is None:
        return ""
    numeraire, sides = context.portfolio.numeraire, (pool.token0, pool.token1)
    if any(token not in references.prices for token in sides):
        coins = [(context.portfolio.token(token), pool.depth(token)) for token in sides]
        return " and ".join(
            f"{decimal_text(raw, token.decimals)} {token.label}" for token, raw in coins
        )
    value = sum(
        (pool.depth(token) * references.prices[token].price for token in sides), Fraction(0)
    )
    return f"{value_text(value, numeraire.decimals, 0)} {numeraire.label}"


# --- Holdings of removed assets: sold first if worth the gas, else named and kept.


@dataclass(frozen=True, slots=True)
class Leftover:
    """Holding of a removed asset. `amount` is in whole coins, "?" if unreadable. It is `dust` if
    its sale costs more gas than it yields.
    """

    symbol: str
    amount: str
    dust: bool

    @property
    def named(self) -> str:
        """Amount and symbol."""
        return f"{self.amount} {self.symbol}"


def find_leftovers(
    before: LoadedConfig | None,
    after: LoadedConfig,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
) -> list[Leftover]:
    """Holdings of assets of `before` that `after` removes. A holding without a price is not dust.
    Raises Retryable.
    """
    if before is None:
        return []
    kept = {asset.address for asset in after.config.portfolio.assets}
    if all(asset.address in kept for asset in before.config.portfolio.assets):
        return []
    with wiring.open_context(before, transports, clock, untrusted_pools=True) as context:
        step = Agent(context).step_input()
    held, prices = (
        {one.token: one.raw for one in step.snapshot.holdings},
        reference_prices(step).prices,
    )
    native, found = prices.get(context.portfolio.wrapped_native), []
    for token in (
        asset.token for asset in context.portfolio.assets if asset.token.address not in kept
    ):
        raw, price = held.get(token.address), prices.get(token.address)
        if raw is None:
            found.append(Leftover(token.label, "?", False))
        elif raw > 0:
            worth_gas = (
                native is None
                or price is None
                or raw * price.price > minimum.leg_gas_value(step.snapshot, native.price)
            )
            found.append(Leftover(token.label, decimal_text(raw, token.decimals), not worth_gas))
    return found


def leftover_lines(found: Sequence[Leftover], keep_holdings: bool) -> tuple[str, ...]:
    """Return lines for holdings that stay in the wallet. Raises Refused for those worth selling,
    unless `keep_holdings`.
    """
    kept = [one for one in found if not one.dust]
    if kept and not keep_holdings:
        raise Refused(
            f"the wallet holds {', '.join(one.named for one in kept)}, which would be unmanaged",
            tuple(Verdict("holdings", one.named, "none", False) for one in kept),
            f"first --target {kept[0].symbol}=0% and a rebalance, then --remove; or --keep-holdings"
            " leaves it in the wallet",
        )
    why = {True: ", less than the gas of its sale,", False: ""}
    return tuple(
        f"{one.named}{why[one.dust]} stay in the wallet and leave the portfolio" for one in found
    )


ENFORCED_TRANSITION_GUARDS = ("plan_cost", "daily_loss")
"""Guards whose limits a transition may not break: the others judge the moment at which it is
sent."""
FIXED = ("chain.chain_id", "wallet.address", "store.url")
"""Keys that an edit may not change: another wallet, chain or store needs its own config and
store."""


@dataclass(frozen=True, slots=True)
class EditReport:
    """An edit: `changes` as lines, and the transition to its targets as one plan without turnover
    limits. `transition` is None if the targets stay. `first` is its first slice within those
    limits, if done `in_rounds`. `state` is unchanged, planned, declined, or written; `warnings` are
    for the owner, `following` the next steps.
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
    """Earlier unconfirmed lines, which this confirmation covers too."""
    new_tokens: NewTokens = NO_NEW_TOKENS
    """Tokens new to the portfolio, with the contracts that the confirmation pins."""


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
    confirm: Confirm | None,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> EditReport:
    """Validate an edited config text and write it once `confirm` returns yes; without `confirm`
    only report.

    `pins` also trusts the new contracts of added tokens; with `unseen`, on local chains alone. If
    the wallet holds more than dust of a removed asset, the text `sell_first` is used instead, if
    given. Raises ConfigError for an invalid text. Raises Refused for a transition that breaks a
    limit (with `in_rounds` only if its first slice does), would halt the bot, or strands a held
    token (unless `keep_holdings`). Nothing is written then.
    """
    file = Path(path)
    text = _read(file)
    after_text = make(text)
    after = load_config_text(after_text, file.resolve(), "the edited config")
    before = _before(text, file)
    found_left = find_leftovers(before, after, transports, clock)
    going = [one for one in found_left if not one.dust]
    if going and sell_first is not None and not keep_holdings:
        found_left, after_text = [], sell_first(text)
        after = load_config_text(after_text, file.resolve(), "the edited config")
    else:
        going = []
    stays = leftover_lines(found_left, keep_holdings)
    stays += tuple(
        f"{one.named} is sold by the next rebalance; trimtab edit --remove {one.symbol} then takes"
        " it away, and with --send does both"
        for one in going
    )
    same = after_text == text
    _require_fixed(before, after)
    with wiring.open_context(after, transports, clock, untrusted_pools=True) as context:
        if same and config_versions.unconfirmed_changes(after, context.store.configs) is None:
            return EditReport((), None, None, 0, stays, (), "unchanged")
        seen, taken_in = inspect_new_tokens(context, before)
        pinned = taken_in.new if pins and (not unseen or after.config.chain.local) else ()
        agent = Agent(seen)
        by_hand = (
            ()
            if before is None or same
            else config_versions.unconfirmed_changes(before, context.store.configs) or ()
        )
        found = _planned_edit(agent, before, in_rounds, same, {row["address"] for row in pinned})
        found = replace(
            found, by_hand=by_hand, new_tokens=taken_in, warnings=stays + found.warnings
        )
        if confirm is None or not confirm(found, agent):
            return found if confirm is None else replace(found, state="declined")
        if pinned:
            new = {row["address"] for row in pinned}
            setup.pin_contracts(context, pinned, [one for one in taken_in.backing if one[1] in new])
        backup = None if same else _write(file, text, after_text)
        if before is not None and not same:
            config_versions.record_version(
                before,
                context.store.configs,
                (
                    config_versions.FIRST
                    if context.store.configs.confirmed() is None
                    else config_versions.NOTICED
                ),
            )
        config_versions.record_version(
            after,
            context.store.configs,
            config_versions.CONFIRMED if same else config_versions.EDITED,
        )
        _dismiss_transfers(before, after, context)
    return replace(found, state="written", backup=backup)


def accept_edit(found: EditReport, agent: Agent) -> bool:
    """Accept without asking (`--yes`). Raises Refused on a live chain if the file was edited by
    hand: the caller may not have seen those changes.
    """
    if found.by_hand and not agent.context.config.chain.local:
        raise config_versions.unconfirmed_error(found.by_hand)
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
    """The config before the edit; None if it did not validate, which the edit may repair."""
    try:
        return load_config_text(text, file.resolve(), str(file))
    except ConfigError:
        return None


def _require_fixed(before: LoadedConfig | None, after: LoadedConfig) -> None:
    if before is None:
        return
    for key in FIXED:
        was, now = (_value(loaded, key) for loaded in (before, after))
        if was != now:
            raise ConfigError(
                f"{key}: cannot be changed: the store belongs to the old value",
                "write a new config: trimtab init --config",
            )
    _require_converted(before.config, after.config)


def _require_converted(before: Config, after: Config) -> None:
    """Raise ConfigError if the numeraire changes and caps that are counted in it do not."""
    was, now = (
        next(
            Token(asset.address, asset.symbol, 18)
            for asset in config.portfolio.assets
            if asset.symbol == config.portfolio.numeraire
        )
        for config in (before, after)
    )
    if was.address == now.address or (is_dollar(was) and is_dollar(now)):
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
        for key, one in LIMITS.items()
        if one.unit is LimitUnit.COINS
    ]
    kept = [key for key, old, new in caps if old == new and new is not None]
    if kept:
        raise ConfigError(
            f"portfolio.numeraire: {was.label} becomes {now.label}, and {', '.join(kept)} would be"
            f" counted in {now.label} unchanged",
            f"set them in the same edit, such as --set {kept[0]}=…",
        )


def _value(loaded: LoadedConfig, key: str) -> object:
    table, name = key.split(".")
    return getattr(getattr(loaded.config, table), name)


def _planned_edit(
    agent: Agent, before: LoadedConfig | None, in_rounds: bool, same: bool, coming: Collection[str]
) -> EditReport:
    """Plan the edit's changes and transition; the confirmation pins the `coming` tokens. Raises
    Refused if it is not allowed.
    """
    loaded, context = agent.context.loaded, agent.context
    changes = (
        (config_versions.unconfirmed_changes(loaded, context.store.configs) or ())
        if same
        else ()
        if before is None
        else load.config_diff(before.text, loaded.text)
    )
    transition = engine.evaluate(
        _unlimited_readers(context.readers), requests.rebalance_wholly_to_targets
    )
    if isinstance(transition.decision, Halt):
        raise Refused(
            f"the edited config would halt: {transition.reason}",
            _failing(transition),
            "correct the edit, or run trimtab doctor",
        )
    first, rounds = None, _rounds(transition, context.limits.turnover_bps)
    breaks = [
        verdict for verdict in _failing(transition) if verdict.guard in ENFORCED_TRANSITION_GUARDS
    ]
    if breaks or rounds > 1:
        first = engine.evaluate(context.readers, requests.rebalance_to_targets)
    if breaks:
        again = (
            [verdict for verdict in _failing(first) if verdict.guard in ENFORCED_TRANSITION_GUARDS]
            if first is not None
            else breaks
        )
        if not in_rounds or again:
            broken = again if in_rounds else breaks
            message = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in broken)
            raise Refused(
                f"the transition breaks a limit: {message}",
                broken,
                "change less at a time, raise the limit, or wait"
                + ("" if in_rounds else "; --in-rounds does it in slices"),
            )
    pins = {pin.address for pin in context.store.trust.pins()}
    unpinned = [
        pool
        for pool in (*context.execution.pinned, *(pool.address for pool in context.pools))
        if pool not in pins
    ]
    unpaid = set(loaded.config.wallet.payout_addresses) - set(
        context.store.requests.payout_addresses()
    )
    waiting = unpaid or not set(unpinned) <= set(coming)
    following = ("trimtab trust: contracts or payout addresses are unconfirmed",) if waiting else ()
    known = {} if before is None else price_level_notes(before.config.portfolio)
    warnings = tuple(
        f"{key}: {words}"
        for key, words in price_level_notes(loaded.config.portfolio).items()
        if known.get(key) != words
    )
    names = pool_names(transition.step_input)
    warnings += tuple(replace_pool_addresses(note, names) for note in _notes(transition, unpinned))
    return EditReport(changes, transition, first, rounds, warnings, following, "planned")


def _unlimited_readers(readers: StepReaders) -> StepReaders:
    """Readers without limits of turnover and temporary stops, so that the whole transition is
    planned.
    """

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        step = readers.assemble(snapshot, history)
        limits = replace(step.limits, turnover_bps=None, daily_turnover_bps=None)
        return replace(
            step, limits=limits, history=replace(step.history, stopped="", claims=(), flows=())
        )

    return replace(readers, assemble=assemble)


def _rounds(transition: StepOutcome, limit_bps: int | None) -> int:
    """Number of rebalances within limits.turnover for the whole transition."""
    plan = transition.plan
    return (
        0
        if plan is None
        else (
            1
            if limit_bps is None
            else max(1, ceil_int(plan.turnover * BPS / (limit_bps * _whole(transition))))
        )
    )


def _whole(transition: StepOutcome) -> Fraction:
    return investable_total(transition.decided.drifts) or Fraction(1)


def _failing(outcome: StepOutcome) -> list[Verdict]:
    verdicts = (*outcome.verdicts, *(() if outcome.plan is None else outcome.plan.verdicts))
    return [verdict for verdict in dict.fromkeys(verdicts) if not verdict.passed]


def _notes(transition: StepOutcome, unpinned: Sequence[str]) -> tuple[str, ...]:
    """Notes on guards that would refuse now, and on assets that stay off target."""
    passing = {"allowlist"} if unpinned else set()
    notes = [
        f"{v.guard} would refuse now: {v.measured}, limit {v.limit}"
        for v in _failing(transition)
        if v.guard not in passing
    ]
    if transition.kind is OutcomeKind.REFUSED and transition.plan is None:
        notes.append(f"no plan leads to these targets now: {transition.reason}")
    plan = transition.plan
    return tuple(notes) + (
        () if plan is None else tuple(f"{item.what}: {item.why}" for item in plan.skipped)
    )


def _dismiss_transfers(
    before: LoadedConfig | None, after: LoadedConfig, context: wiring.AgentContext
) -> None:
    """Classify open deposits of removed assets as gifts: they stay in the wallet and need no
    explanation.
    """
    gone = {one.address for one in ([] if before is None else before.config.portfolio.assets)}
    gone -= {one.address for one in after.config.portfolio.assets}
    for flow in context.store.balances.transfers(1_000):
        if flow.is_open and flow.token in gone and flow.delta_raw > 0:
            context.store.balances.classify(
                flow.id, ExternalTransferKind.GIFT, context.clock.now_s()
            )


def _write(file: Path, before: str, after: str) -> str:
    """Replace the text atomically and keep the old file beside it; both owner-only."""
    backup = file.with_name(f"{file.name}.bak")
    if _read(file) != before:
        raise Refused(
            f"{file} changed during the edit; nothing was written",
            remedy="check the file and edit again",
        )
    for place, text in ((backup, before), (file, after)):
        write_config(place, text, 0o600)
    return str(backup)


# --- Removal of an asset by one command: target 0 %, sold to the last base unit, then removed. Each
# act finds its own remaining work.


SALES = 12
"""Plans in a row for one asset."""


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """Result of a removal. `edited` is the config edit; `state` is that of the edit until it is
    written, then removed or unfinished.

    An unfinished one has the `reason` and the next step; the asset's target is 0 %.
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
    """Remove `changes.removes`. Held assets get a target of 0 % first; with `send` they are sold at
    once and removed. Raises like an edit, and Refused while the bot is stopped.
    """

    def change(changed: ConfigChanges, asked: Confirm | None) -> EditReport:
        return edit(
            path,
            partial(apply_changes, changes=changed),
            in_rounds=in_rounds,
            keep_holdings=keep_holdings,
            sell_first=partial(apply_changes, changes=sell_removed_assets(changed)),
            pins=True,
            unseen=unseen,
            confirm=asked,
            transports=transports,
            clock=clock,
        )

    first = change(changes, confirm)
    symbols = [
        one.symbol
        for one in load_config(path).config.portfolio.assets
        if one.symbol in changes.removes
    ]
    if not symbols and first.state == "written":
        return RemovalReport(first, "removed", "")
    if not send or first.state in ("planned", "declined"):
        return RemovalReport(first, first.state, "")
    sent: list[Intent] = []
    sold, why = _sold_out(path, symbols, confirm_sale, progress, transports, clock, sent)
    last = (
        change(ConfigChanges(removes=tuple(symbols)), lambda _edit, _agent: True) if sold else first
    )
    if {one.symbol for one in load_config(path).config.portfolio.assets} & set(symbols):
        again = " ".join(f"--remove {one}" for one in symbols)
        message = (
            f"{', '.join(symbols)} stays at a target of 0 %: {why}; trimtab edit {again} --send"
            " continues"
        )
        return RemovalReport(first, "unfinished", message, tuple(sent))
    joined = replace(
        last, changes=first.changes + last.changes, warnings=tuple(dict.fromkeys(last.warnings))
    )
    return RemovalReport(joined, "removed", "", tuple(sent))


def _sold_out(
    path: Path | str,
    symbols: Sequence[str],
    confirm: ConfirmSale,
    progress: Progress,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
    sent: list[Intent],
) -> tuple[bool, str]:
    """Sell each as far as possible; return True if all may be removed now, and the last message."""
    message = ""
    with open_agent(path, transports=transports, clock=clock) as agent:
        agent.require_not_stopped()
        context = agent.context
        with wiring.open_actors(
            context, lambda outcome: confirm(agent, outcome), progress
        ) as actors:
            for symbol in symbols:
                token = agent.token(symbol, "--remove").address
                for _ in range(SALES):
                    done = engine.run_step(
                        context.readers, SellEntireBalance(token), context.store, actors
                    )
                    sent += done.transactions
                    message = done.reason
                    if done.kind is OutcomeKind.HOLD:
                        break
                    if done.kind is not OutcomeKind.DONE:
                        return False, message
    return True, message
