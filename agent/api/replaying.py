"""Decides recorded steps again with the code of now, and says what is different. Reads files, and nothing else."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent import codec, engine
from agent.api.offline import require_possible
from agent.errors import EXIT_DIFFERS, EXIT_OK, EXIT_USAGE, ConfigError, TrimtabError, plain
from agent.execution.outcome import Outcome
from agent.model import AdjustLiquidity, ByHand, Halt, Hold, Plan, Rebalance, TopUp
from agent.planning import asked, strategies
from agent.planning.strategies import Proposer
from agent.store import recorder
from agent.store.recorder import RecordedStep

Document = dict[str, Any]
MOST_BYTES = 64 * 1024 * 1024
"""No step is larger by far; a file that is was not written here."""
MOST_SHOWN = 20
"""Differences of one step that are told; the rest are counted."""
SAME, DIFFERENT, BY_HAND, UNREADABLE = "same", "different", "by hand", "unreadable"
DECIDED = tuple(kind.__name__.lower() for kind in (Hold, Halt, Rebalance, AdjustLiquidity, TopUp))
"""Decisions that a step itself makes, where it does not say what asked for it; payouts and the like its owner made."""


def replay(folder: Path) -> Document:
    """Every step in the folder, in the order of the files' names. Raises ConfigError where there is none to read.

    Each is proposed again by what proposed it: the agent's strategy, or what its owner asked for ("asked" says which command). A
    file that is no step is named, and the rest goes on. Guards that need evidence of the moment do not judge again: what is compared
    is the decision with its reason, and the plan as it was made. "exit" is the exit code that says what was found.
    """
    steps = [_told(path) for path in _files(folder)]
    if not steps:
        raise ConfigError(f"{folder}: holds no recorded steps", "name the folder of record.dir, or of trimtab run --record")
    counted = Counter(step["result"] for step in steps)
    code = EXIT_DIFFERS if counted[DIFFERENT] else EXIT_USAGE if counted[UNREADABLE] else EXIT_OK
    return {
        "folder": str(folder),
        "version": version("trimtab"),
        "steps": steps,
        **{name.replace(" ", "_"): counted[name] for name in (SAME, DIFFERENT, BY_HAND, UNREADABLE)},
        "exit": code,
    }


def _files(folder: Path) -> Iterator[Path]:
    """Names that end in .json, sorted; what lies in folders below is not looked at."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".json") and not entry.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}", "name a folder written by trimtab run --record") from None
    yield from (folder / name for name in names)


def _told(path: Path) -> Document:
    """One file, whatever is in it."""
    try:
        found = recorder.loads(_read(path))
        require_possible(found.input)
        facts = _facts(found)
    except TrimtabError as error:
        return {"file": plain(path.name), "result": UNREADABLE, "why": error.message}
    return {"file": plain(path.name), **facts, **_compared(found)}


def _read(path: Path) -> str:
    """The text of a regular file: no link is followed, and nothing is waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
                raise ConfigError("not a regular file", "only regular files of up to 64 MiB are read")
            return file.read(MOST_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError("it is not text") from None


def _facts(step: RecordedStep) -> Document:
    head = step.input.snapshot.head
    return {
        "step": step.step,
        "time": _utc(step.now_s),
        "block": head.number,
        "chain_id": head.chain_id,
        "version": step.version,
        "books": step.books,
        "config": step.config,
        "decision": step.decision,
        "reason": step.reason,
        "outcome": step.outcome,
        "asked": None if step.asked is None else asked.named(step.asked),
    }


def _compared(step: RecordedStep) -> Document:
    """What is different now: the decision, its reason, the plan."""
    if step.decision is None:
        return {"result": UNREADABLE, "why": "the step was interrupted before it decided"}
    if (propose := _proposer(step)) is None:
        return {"result": BY_HAND, "differs": [], "more": 0}
    try:
        differs = list(_differences(step, engine.judged_once(step.input, propose, None)))
    except Exception as error:  # what was decided once, and cannot be any more, is told like any other difference
        differs = [_difference("error", None, f"{type(error).__name__}: {plain(str(error))}")]
    return {"result": DIFFERENT if differs else SAME, "differs": differs[:MOST_SHOWN], "more": max(0, len(differs) - MOST_SHOWN)}


def _proposer(step: RecordedStep) -> Proposer | None:
    """What it was proposed by; None where its owner did it and nothing was proposed."""
    if step.asked is None:
        return None if _by_hand(step) else strategies.rebalance
    return None if isinstance(step.asked, ByHand) else asked.proposer(step.asked)


def _by_hand(step: RecordedStep) -> bool:
    """Whether its owner asked for it, of a step that does not say: a swap, a payment, something taken back. A halt that was no halt in
    the end took back.
    """
    swapped = step.plan is not None and isinstance(step.plan.decision, Rebalance) and step.plan.decision.by_hand
    return swapped or step.decision not in DECIDED or (step.decision == "halt" and step.outcome not in ("halt", "error"))


def _differences(step: RecordedStep, found: Outcome) -> Iterator[Document]:
    now = type(found.decision).__name__.lower()
    if now != step.decision:
        yield _difference("decision", step.decision, now)
    if step.plan is None and found.plan is None and step.outcome != "error" and not (step.reason or "").endswith(found.reason):
        yield _difference("reason", step.reason, found.reason)
    yield from _between("plan", _bare(step.plan), _bare(found.plan))


def _bare(plan: Plan | None) -> Any:
    """A plan without verdicts, as JSON; None without one."""
    return None if plan is None else codec.to_jsonable(replace(plan, verdicts=()))


def _between(place: str, before: Any, now: Any) -> Iterator[Document]:
    """Every leaf in which two trees differ; a branch that only one has as a whole."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _between(f"{place}.{key}", before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _between(f"{place}[{number}]", one, other)
    elif before != now:
        yield _difference(place, before, now)


def _difference(what: str, before: Any, now: Any) -> Document:
    return {"what": what, "recorded": before, "now": now}


def _utc(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        raise ConfigError(f"{seconds} is no time") from None
