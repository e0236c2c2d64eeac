"""Saved and recorded step inputs, decided again without a chain or a store."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent import codec
from agent.errors import (
    EXIT_DIFFERS,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    TrimtabError,
    printable_text,
)
from agent.execution import evaluation
from agent.execution.step_context import StepOutcome
from agent.execution.step_result import WAITING_OUTCOME
from agent.files import open_unlinked
from agent.foreign_text import failure_text
from agent.model import (
    ManualAction,
    Plan,
    Portfolio,
    Snapshot,
    StepInput,
    decision_name,
)
from agent.planning import proposals, requests
from agent.planning.plan_builder import PLAN_COST_LIMIT
from agent.planning.proposals import Proposer
from agent.store.files import recorder
from agent.store.files.recorder import RecordedStep
from agent.units import utc_text

MAX_DECIMALS = 255
"""Largest number of decimals that a contract can return."""


def input_text(step_input: StepInput) -> str:
    """Return the step input as `plan --save-input` writes it."""
    return codec.dumps(step_input) + "\n"


def plan_saved_input(input_json: str) -> StepOutcome:
    """Plan a saved input, without the guards that need live evidence. Raises ConfigError."""
    return plan_step_input(codec.loads(StepInput, input_json))


def plan_step_input(step_input: StepInput) -> StepOutcome:
    """Plan a parsed input, without the guards that need live evidence. Raises ConfigError."""
    require_possible_input(step_input.snapshot, step_input.portfolio)
    try:
        return evaluation.evaluate_input(step_input, proposals.propose_rebalance, None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # well-formed, but its parts contradict each other
        raise ConfigError(
            f"the input is inconsistent: {failure_text(error)}",
            "use a file written by plan --save-input",
        ) from None


def require_possible_input(snapshot: Snapshot, portfolio: Portfolio) -> None:
    """Raise ConfigError for impossible decimals or pools, on which a decision might not
    terminate.
    """
    tokens = (portfolio.numeraire, *(asset.token for asset in portfolio.assets), *portfolio.hubs)
    for address, decimals in (  # before powers of ten are computed
        *((token.address, token.decimals) for token in tokens),
        *((answer.feed, answer.decimals) for answer in snapshot.feeds),
    ):
        if not 0 <= decimals <= MAX_DECIMALS:
            raise ConfigError(
                f"{address} has impossible decimals in the input: {decimals}",
                "use a file written by plan --save-input",
            )
    for pool in snapshot.pools:
        if pool.fault:
            raise ConfigError(
                f"pool {pool.address} is impossible in the input: {pool.fault}",
                "use a file written by plan --save-input",
            )


Document = dict[str, Any]
MAX_STEP_BYTES = 64 * 1024 * 1024
"""Maximum size of a step file."""
MAX_SHOWN_DIFFERENCES = 20
"""Number of differences shown per step; further ones are only counted."""
SAME = "same"
DIFFERENT = "different"
MANUAL = "manual"
UNREADABLE = "unreadable"
REWORDED = "reworded"
"""The same decision and plan, which a later version explains in other words or whose distance to the
best plan it bounds by another figure.
"""
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def replay(folder: Path) -> Document:
    """Replay every step in a folder, in the order of file names.

    Each step is decided again for its original request, or by the policy if there was
    none. Its decision, reason and plan are compared, without the guards that need live evidence.
    Files that are not steps are reported and skipped. "exit" is the exit code. Raises ConfigError
    if the folder has no steps.
    """
    step_documents = [_replay_document(path) for path in _step_files(folder)]
    if not step_documents:
        raise ConfigError(
            f"{folder}: holds no recorded steps",
            "name the folder of record.dir, or of trimtab run --record",
        )
    result_counts = Counter(step_document["result"] for step_document in step_documents)
    exit_code = EXIT_OK
    if result_counts[DIFFERENT]:
        exit_code = EXIT_DIFFERS
    elif result_counts[UNREADABLE]:
        exit_code = EXIT_USAGE
    return {
        "folder": str(folder),
        "version": version("trimtab"),
        "steps": step_documents,
        **{
            result_name: result_counts[result_name]
            for result_name in (SAME, REWORDED, DIFFERENT, MANUAL, UNREADABLE)
        },
        "exit": exit_code,
    }


def _step_files(folder: Path) -> Iterator[Path]:
    """Yield the .json files of the folder itself, sorted by name."""
    try:
        file_names = sorted(
            directory_entry.name
            for directory_entry in os.scandir(folder)
            if directory_entry.name.endswith(".json") and not directory_entry.name.startswith(".")
        )
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}", "use a folder written by trimtab run --record"
        ) from None
    yield from (folder / file_name for file_name in file_names)


def _replay_document(path: Path) -> Document:
    """Replay one file; an invalid one is reported as unreadable."""
    try:
        recorded_step = recorder.load_recorded_step(_read_text(path))
        require_possible_input(recorded_step.input.snapshot, recorded_step.input.portfolio)
        step_fields = _step_fields(recorded_step)
    except TrimtabError as error:
        return {"file": printable_text(path.name), "result": UNREADABLE, "why": error.message}
    return {"file": printable_text(path.name), **step_fields, **_comparison(recorded_step)}


def _read_text(path: Path) -> str:
    """Return the text of a regular file; never follows a link and never blocks."""
    try:
        with open(path, "rb", opener=open_unlinked) as file:
            file_status = os.fstat(file.fileno())
            if not stat.S_ISREG(file_status.st_mode):
                raise ConfigError("not a regular file", "use a regular file")
            if file_status.st_size > MAX_STEP_BYTES:
                raise ConfigError("larger than 64 MiB", "use a file of up to 64 MiB")
            return file.read(MAX_STEP_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"unreadable file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text") from None


def _step_fields(recorded_step: RecordedStep) -> Document:
    head = recorded_step.input.snapshot.head
    return {
        "step": recorded_step.step_id,
        "time": _utc_text(recorded_step.now_s),
        "block": head.number,
        "chain_id": head.chain_id,
        "version": recorded_step.version,
        "book_kind": recorded_step.store_kind,
        "config": recorded_step.config_hash,
        "decision": recorded_step.decision,
        "reason": recorded_step.reason,
        "outcome": recorded_step.outcome,
        "requested_by": None
        if recorded_step.request is None
        else requests.requester_name(recorded_step.request),
    }


def _comparison(recorded_step: RecordedStep) -> Document:
    """Replay the step, and return the differences of decision, reason and plan."""
    if recorded_step.decision is None:
        return {"result": UNREADABLE, "why": "the step was interrupted before it decided"}
    if (proposer := _proposer(recorded_step)) is None:
        return {"result": MANUAL, "differs": [], "more_differences": 0}
    try:
        differences = list(
            _differences(
                recorded_step, evaluation.evaluate_input_once(recorded_step.input, proposer, None)
            )
        )
    except Exception as error:  # an error in place of a decision is a difference too
        differences = [_difference("error", None, printable_text(failure_text(error)))]
    comparison_result = SAME
    if differences:
        comparison_result = REWORDED if all(map(_is_wording, differences)) else DIFFERENT
    return {
        "result": comparison_result,
        "differs": differences[:MAX_SHOWN_DIFFERENCES],
        "more_differences": max(0, len(differences) - MAX_SHOWN_DIFFERENCES),
    }


def _is_wording(difference: Document) -> bool:
    """Return whether a difference is one of words: a reason or a title in a plan, the reason of a
    step whose numbers are only written differently, the cost that it compares with
    limits.plan_cost, or the proven gap of the plan, which decides nothing.
    """
    recorded = difference["recorded"]
    now = difference["now"]
    value_path: str = difference["path"]
    if value_path == "plan.gap_bps":
        return recorded is not None and now is not None
    if value_path == "reason":
        names_cost = all(PLAN_COST_LIMIT in str(text) for text in (recorded, now))
        return names_cost or _plain_numbers(str(recorded)) == _plain_numbers(str(now))
    return value_path.endswith((".reason", ".title", ".why"))


def _plain_numbers(text: str) -> str:
    """Return the text with each number in one form: 1,000.50 and 1000.5 are the same."""
    return _NUMBER.sub(lambda match: f"{Decimal(match[0].replace(',', '')).normalize():f}", text)


def _proposer(recorded_step: RecordedStep) -> Proposer | None:
    """Return the step's proposer; None if the owner acted and nothing was proposed."""
    request = recorded_step.request
    if request is not None:
        return None if isinstance(request, ManualAction) else requests.proposer(request)
    is_by_owner = requests.is_owner_step(
        None, recorded_step.decision, recorded_step.outcome, recorded_step.plan
    )
    return None if is_by_owner else proposals.propose_rebalance


def _differences(recorded_step: RecordedStep, outcome: StepOutcome) -> Iterator[Document]:
    decision_now = decision_name(type(outcome.decision))
    if decision_now != recorded_step.decision:
        yield _difference("decision", recorded_step.decision, decision_now)
    if (
        recorded_step.plan is None
        and outcome.plan is None
        and recorded_step.outcome not in ("error", WAITING_OUTCOME)
        and not (recorded_step.reason or "").endswith(outcome.reason)
    ):
        yield _difference("reason", recorded_step.reason, outcome.reason)
    yield from _differences_between(
        "plan", _without_verdicts(recorded_step.plan), _without_verdicts(outcome.plan)
    )


def _without_verdicts(plan: Plan | None) -> Any:
    """Return a plan without verdicts as JSON data; None without a plan."""
    return None if plan is None else codec.to_jsonable(replace(plan, verdicts=()))


def _differences_between(
    value_path: str, recorded_value: Any, current_value: Any
) -> Iterator[Document]:
    """Yield every leaf in which two trees differ; a branch of only one tree counts as one leaf."""
    if isinstance(recorded_value, dict) and isinstance(current_value, dict):
        for key in sorted(recorded_value.keys() | current_value.keys()):
            yield from _differences_between(
                f"{value_path}.{key}", recorded_value.get(key), current_value.get(key)
            )
    elif (
        isinstance(recorded_value, list)
        and isinstance(current_value, list)
        and len(recorded_value) == len(current_value)
    ):
        for index, (recorded_element, current_element) in enumerate(
            zip(recorded_value, current_value, strict=True)
        ):
            yield from _differences_between(
                f"{value_path}[{index}]", recorded_element, current_element
            )
    elif recorded_value != current_value:
        yield _difference(value_path, recorded_value, current_value)


def _difference(value_path: str, recorded_value: Any, current_value: Any) -> Document:
    return {"path": value_path, "recorded": recorded_value, "now": current_value}


def _utc_text(time_s: int) -> str:
    try:
        return utc_text(time_s)
    except (OverflowError, OSError, ValueError):
        raise ConfigError(f"{time_s} is not a time") from None
