"""Changing a running bot: the edited config is validated whole, its transition planned and judged, then it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent import engine, wiring
from agent.api import leaving, setup, versions
from agent.api.agent import Agent
from agent.api.naming import named, pool_names
from agent.api.newcomers import NONE, Newcomers, newcomers
from agent.chain.rpc import Transport
from agent.config import redaction
from agent.config.load import NO_CONFIG, LoadedConfig, loaded_from
from agent.config.order_edit import written
from agent.config.orders import prices_in_words
from agent.config.schema import Config
from agent.config.tighter import DIRECTIONS
from agent.errors import ConfigError, Refused
from agent.execution.fresh import Eyes
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import FlowKind, Halt, History, Snapshot, StepInput, Verdict
from agent.planning import owner
from agent.policy.drift import total
from agent.ports import Clock
from agent.reference.peg import is_dollar
from agent.store.private import require_private
from agent.units import BPS, Token, ceil_int

BREAKS = ("plan_cost", "daily_loss")
"""Guards whose limits a transition may not break: the others judge the moment at which it is sent."""
FIXED = ("chain.chain_id", "wallet.address", "store.url")
"""What another wallet, chain or store has: a config and books of its own."""


@dataclass(frozen=True, slots=True)
class Editing:
    """An edit: the `changes` as lines, and the transition to its targets as one plan without limits of turnover (None: the targets
    stay). `first` is its first part within those limits, where it goes in `rounds`.

    `state` is unchanged, planned, declined, or written; `warnings` are what its owner should know, `following` what to do next.
    """

    changes: tuple[str, ...]
    transition: Outcome | None
    first: Outcome | None
    rounds: int
    warnings: tuple[str, ...]
    following: tuple[str, ...]
    state: str
    backup: str | None = None
    by_hand: tuple[str, ...] = ()
    """Lines that somebody changed in the file before, and nobody has confirmed: a yes to this edit confirms them with it."""
    taken_in: Newcomers = NONE
    """Tokens that come into the portfolio, with what a yes pins."""


Confirm = Callable[[Editing, Agent], bool]


def edit(
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
) -> Editing:
    """Makes another text of the config and writes it once `confirm` says yes; without a `confirm` it only shows. With `pins` that
    yes also trusts the new contracts of tokens that come in; where nobody has seen them (`unseen`), on local chains alone. Where
    the wallet holds more than dust of what is taken away, the text of `sell_first` takes its place, if there is one.

    Raises ConfigError for a text that does not validate, Refused for a transition that breaks a limit (with `in_rounds` only if its
    first round does), would halt the bot, or leaves a token behind that the wallet holds (unless `keep_holdings`). Then nothing is
    written.
    """
    file = Path(path)
    text = _read(file)
    after_text = make(text)
    after = loaded_from(after_text, file.resolve(), "the edited config")
    before = _before(text, file)
    found_left = leaving.left(before, after, transports, clock)
    going = [one for one in found_left if not one.dust]
    if going and sell_first is not None and not keep_holdings:
        found_left, after_text = [], sell_first(text)
        after = loaded_from(after_text, file.resolve(), "the edited config")
    else:
        going = []
    stays = leaving.told(found_left, keep_holdings)
    stays += tuple(
        f"{one.named} is sold by the next rebalance; trimtab edit --remove {one.symbol} then takes it away, and with --send does both"
        for one in going
    )
    same = after_text == text
    _require_fixed(before, after)
    with wiring.open_desk(after, transports, clock, untrusted_pools=True) as desk:
        if same and versions.changed(after, desk.store) is None:
            return Editing((), None, None, 0, stays, (), "unchanged")
        seen, taken_in = newcomers(desk, before)
        pinned = taken_in.new if pins and (not unseen or after.config.chain.local) else ()
        agent = Agent(seen)
        by_hand = () if before is None or same else versions.changed(before, desk.store) or ()
        found = _judged(agent, before, in_rounds, same, {row["address"] for row in pinned})
        found = replace(found, by_hand=by_hand, taken_in=taken_in, warnings=stays + found.warnings)
        if confirm is None or not confirm(found, agent):
            return found if confirm is None else replace(found, state="declined")
        if pinned:
            new = {row["address"] for row in pinned}
            setup.pin(desk, pinned, [one for one in taken_in.backing if one[1] in new])
        backup = None if same else _write(file, text, after_text)
        if before is not None and not same:
            versions.keep(before, desk.store, versions.FIRST if desk.store.confirmed_config() is None else versions.NOTICED)
        versions.keep(after, desk.store, versions.CONFIRMED if same else versions.EDITED)
        _let_go(before, after, desk)
    return replace(found, state="written", backup=backup)


def trusted(found: Editing, agent: Agent) -> bool:
    """For machines, that ask nobody (`--yes`): raises Refused on a chain that is not local where the file was changed by hand before,
    since who gave the edit may never have seen that.
    """
    if found.by_hand and not agent.desk.config.chain.local:
        raise versions.unconfirmed(found.by_hand)
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
    """The config as it was; None where that did not validate, which an edit may mend."""
    try:
        return loaded_from(text, file.resolve(), str(file))
    except ConfigError:
        return None


def _require_fixed(before: LoadedConfig | None, after: LoadedConfig) -> None:
    if before is None:
        return
    for key in FIXED:
        was, now = (_value(loaded, key) for loaded in (before, after))
        if was != now:
            raise ConfigError(f"{key}: cannot be changed: the store belongs to the old value", "write a new config: trimtab init --config")
    _require_converted(before.config, after.config)


def _require_converted(before: Config, after: Config) -> None:
    """Raises ConfigError where another coin becomes the numeraire and caps that are counted in it stay as they are."""
    was, now = (
        next(Token(asset.address, asset.symbol, 18) for asset in config.portfolio.assets if asset.symbol == config.portfolio.numeraire)
        for config in (before, after)
    )
    if was.address == now.address or (is_dollar(was) and is_dollar(now)):
        return
    caps = [("portfolio.max_live_value", before.portfolio.max_live_value, after.portfolio.max_live_value)]
    caps += [(f"limits.{key}", getattr(before.limits, key), getattr(after.limits, key)) for key, one in DIRECTIONS.items() if one.coins]
    kept = [key for key, old, new in caps if old == new and new is not None]
    if kept:
        raise ConfigError(
            f"portfolio.numeraire: {was.label} becomes {now.label}, and {', '.join(kept)} would be counted in {now.label} unchanged",
            f"set them in the same edit, such as --set {kept[0]}=…",
        )


def _value(loaded: LoadedConfig, key: str) -> object:
    table, name = key.split(".")
    return getattr(getattr(loaded.config, table), name)


def _judged(agent: Agent, before: LoadedConfig | None, in_rounds: bool, same: bool, coming: Collection[str]) -> Editing:
    """What the edit changes and leads to; a yes pins what is `coming`. Raises Refused where that may not be."""
    loaded, desk = agent.desk.loaded, agent.desk
    changes = (
        (versions.changed(loaded, desk.store) or ()) if same else () if before is None else redaction.changes(before.text, loaded.text)
    )
    transition = engine.look(_eyes(desk.eyes), owner.wholly_to_targets)
    if isinstance(transition.decision, Halt):
        raise Refused(f"the edited config would halt: {transition.reason}", _failing(transition), "correct the edit, or run trimtab doctor")
    first, rounds = None, _rounds(transition, desk.limits.turnover_bps)
    breaks = [verdict for verdict in _failing(transition) if verdict.guard in BREAKS]
    if breaks or rounds > 1:
        first = engine.look(desk.eyes, owner.to_targets)
    if breaks:
        again = [verdict for verdict in _failing(first) if verdict.guard in BREAKS] if first is not None else breaks
        if not in_rounds or again:
            broken = again if in_rounds else breaks
            said = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in broken)
            raise Refused(
                f"the transition breaks a limit: {said}",
                broken,
                "change less at a time, raise the limit, or wait" + ("" if in_rounds else "; --in-rounds lets it go in parts"),
            )
    pins = {pin.address for pin in desk.store.pins()}
    unpinned = [pool for pool in (*desk.execution.pinned, *(pool.address for pool in desk.pools)) if pool not in pins]
    unpaid = set(loaded.config.wallet.payout_addresses) - set(desk.store.payout_addresses())
    waiting = unpaid or not set(unpinned) <= set(coming)
    following = ("trimtab trust: contracts or payout addresses wait to be confirmed",) if waiting else ()
    known = {} if before is None else prices_in_words(before.config.portfolio)
    warnings = tuple(f"{key}: {words}" for key, words in prices_in_words(loaded.config.portfolio).items() if known.get(key) != words)
    names = pool_names(transition.step_input)
    warnings += tuple(named(note, names) for note in _notes(transition, unpinned))
    return Editing(changes, transition, first, rounds, warnings, following, "planned")


def _eyes(eyes: Eyes) -> Eyes:
    """Looks without the limits of turnover, and without what stops the bot for now, so that the whole transition is seen."""

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        step = eyes.assemble(snapshot, history)
        limits = replace(step.limits, turnover_bps=None, daily_turnover_bps=None)
        return replace(step, limits=limits, history=replace(step.history, stopped="", claims=(), flows=()))

    return replace(eyes, assemble=assemble)


def _rounds(transition: Outcome, limit_bps: int | None) -> int:
    """How many rebalances within limits.turnover the whole of it takes."""
    plan = transition.plan
    return 0 if plan is None else 1 if limit_bps is None else max(1, ceil_int(plan.turnover * BPS / (limit_bps * _whole(transition))))


def _whole(transition: Outcome) -> Fraction:
    return total(transition.decided.drifts) or Fraction(1)


def _failing(outcome: Outcome) -> list[Verdict]:
    verdicts = (*outcome.verdicts, *(() if outcome.plan is None else outcome.plan.verdicts))
    return [verdict for verdict in dict.fromkeys(verdicts) if not verdict.passed]


def _notes(transition: Outcome, unpinned: Sequence[str]) -> tuple[str, ...]:
    """What stands in the way of sending it now, and what stays undone."""
    passing = {"allowlist"} if unpinned else set()
    said = [f"{v.guard} would refuse now: {v.measured}, limit {v.limit}" for v in _failing(transition) if v.guard not in passing]
    if transition.kind is OutcomeKind.REFUSED and transition.plan is None:
        said.append(f"no plan leads to these targets now: {transition.reason}")
    plan = transition.plan
    return tuple(said) + (() if plan is None else tuple(f"{item.what}: {item.why}" for item in plan.skipped))


def _let_go(before: LoadedConfig | None, after: LoadedConfig, desk: wiring.Desk) -> None:
    """What came unexplained of assets that the config no longer has is nobody's question any more: it stays in the wallet."""
    gone = {one.address for one in ([] if before is None else before.config.portfolio.assets)}
    gone -= {one.address for one in after.config.portfolio.assets}
    for flow in desk.store.flows(1_000):
        if flow.is_open and flow.token in gone and flow.delta_raw > 0:
            desk.store.tell_flow(flow.id, FlowKind.GIFT, desk.clock.now_s())


def _write(file: Path, before: str, after: str) -> str:
    """Puts the new text in the old one's place, all or nothing, and the old one beside it; both for their owner's eyes alone."""
    backup = file.with_name(f"{file.name}.bak")
    if _read(file) != before:
        raise Refused(f"{file} changed during the edit; nothing was written", remedy="check the file and edit again")
    for place, text in ((backup, before), (file, after)):
        written(place, text, 0o600)
    return str(backup)


def confirm_as_it_is(text: str) -> str:
    """For a file that was changed by hand and is to be confirmed."""
    return text
