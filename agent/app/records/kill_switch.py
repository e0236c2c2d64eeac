"""The kill switch: pause and resume, also while the store cannot be opened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.documents.status import active_stop_document
from agent.config.load import load_config, store_file_unchecked
from agent.config.loaded import ConfigSource, LoadedConfig, is_place_of_server
from agent.errors import Refused, TrimtabError
from agent.model import Control, ControlCode, ControlState, RequestState
from agent.policy.cash_flows.buy_back import shortest_buy_back
from agent.store.controls import ControlStateChange
from agent.store.files.pause import (
    PAUSE_FILE_FLAGS,
    KillSwitch,
    has_pause_file,
    pause_file,
    paused_here_alone_error,
)
from agent.units import format_duration
from agent.wiring.signed_proposals import rejected_proposal_texts, unstopped_texts

if TYPE_CHECKING:
    from agent.app.documents.owner import PauseDocument
    from agent.store.store import Store


def pause_by_file(config: LoadedConfig | Path | str, error: TrimtabError) -> Path:
    """Create the pause file beside a store that cannot be opened, or whose config is invalid, and
    return its path. Raises `error` if the file cannot be created either, PassingFault after it was
    if the store is on PostgreSQL, where other machines do not see it.
    """
    if isinstance(config, LoadedConfig):
        pause_path = pause_file(wiring.store_file(config))
    else:
        pause_path = pause_file(store_file_unchecked(config, error))
    try:
        os.close(os.open(pause_path, PAUSE_FILE_FLAGS, 0o600))
        with suppress(OSError):  # a file of another account pauses too
            os.utime(pause_path)
    except OSError:
        raise error from None
    if is_place_of_server(pause_path.with_suffix("")):
        raise paused_here_alone_error(pause_path, error) from error
    return pause_path


def pause(config: LoadedConfig | Path | str, reason: str) -> PauseDocument:
    """Pause all sending until `resume`. If the store cannot be opened or the config is invalid, a
    file beside the store takes its place, and `store` has the reason.
    """
    with ExitStack() as stack:
        try:
            loaded_config = load_config(config, checks_permissions=False)
            store, switch = stack.enter_context(wiring.open_store_offline(loaded_config))
        except TrimtabError as error:
            return {
                "paused": True,
                "hard": False,
                "reason": f"{pause_by_file(config, error)} exists",
                "store": str(error),
            }
        switch.pause(reason, int(time.time()))
        document: PauseDocument = {"paused": True, "hard": switch.is_hard(), "reason": reason}
        if signed_texts := unstopped_texts(store):
            document["signed"] = list(signed_texts)
        return document


def shown_pause(config: ConfigSource) -> dict[str, object]:
    """Return the kill switch and an active stop with the fields of the status. Reads no chain, and
    creates no store.
    """
    loaded_config = load_config(config)
    if not wiring.has_store(loaded_config):
        file = pause_file(wiring.store_file(loaded_config))
        reason = f"{file} exists" if has_pause_file(wiring.store_file(loaded_config)) else ""
        is_paused = bool(reason)
        is_hard = False
        signed_texts: Sequence[str] = ()
        stop = None
    else:
        with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as (store, switch):
            state = switch.read()
            is_paused = state.paused is not False
            reason = state.reason
            is_hard = state.hard
            signed_texts = unstopped_texts(store) if is_paused else ()
            stop = store.requests.active_stop()
    return {
        "paused": is_paused,
        "pause_reason": reason,
        "pause_hard": is_hard,
        "pause_signed": list(signed_texts),
        **active_stop_document(stop),
    }


def resume(config: LoadedConfig | Path | str, confirm: Callable[[str], bool]) -> PauseDocument:
    """End the pause and any stop. Completed sales and payments are not undone.

    `confirm` is asked before the end of a stop that sells everything, because the next cycle buys
    it back. Raises Refused, and ends nothing, if it declines or if the store is a copy that nobody
    has adopted.
    """
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, switch):
        stop_request = store.requests.active_stop()
        if stop_request is not None and stop_request.sells_everything:
            numeraire = loaded_config.config.portfolio.numeraire
            buy_back_warning = (
                f"the stop sells everything for {numeraire}; once it is resumed, a run buys back towards"
                f" the targets{_buy_back_text(loaded_config)}"
            )
            if not confirm(buy_back_warning):
                raise Refused(
                    f"not resumed: {buy_back_warning}", remedy="trimtab resume --yes, or answer y"
                )
        document = end_pause(store, switch, "resumed by trimtab resume", int(time.time()))
        if rejected_texts := rejected_proposal_texts(store):
            document["rejected"] = rejected_texts
        return document


def _buy_back_text(loaded_config: LoadedConfig) -> str:
    """Return the number of rebalances until the targets are reached, and their shortest time."""
    config = loaded_config.config
    portfolio = config.portfolio
    limits = config.limits
    share_bps = sum(
        asset.target for asset in portfolio.assets if asset.symbol != portfolio.numeraire
    )
    rebalance_count, duration_s = shortest_buy_back(
        share_bps, limits.turnover, limits.daily_turnover, config.policy.cooldown
    )
    if rebalance_count <= 1:
        return ""
    return (
        f", in at least {rebalance_count} rebalances over {format_duration(duration_s)}, by"
        " limits.turnover, limits.daily_turnover and policy.cooldown"
    )


def resume_by_control(
    store: Store, switch: KillSwitch, control_number: int, control: Control, now_s: int
) -> ControlStateChange:
    """Carry out a taken request to resume. Raises Refused while a stop of the owner is active, or
    if the store is a copy.
    """
    if switch.paused_at_or_after(control.asked_at_s) or store.controls.pause_requested_after(
        control_number
    ):
        refusal = "a pause came after this request; ask again"
        return ControlStateChange(
            control_number, ControlState.REFUSED, ControlCode.PAUSED_SINCE, refusal
        )
    store.requests.require_not_stopped()
    end_pause(store, switch, f"resumed by {control.asked_by} ({control.origin.value})", now_s)
    return ControlStateChange(control_number, ControlState.DONE, "", "resumed")


def end_pause(store: Store, switch: KillSwitch, reason: str, now_s: int) -> PauseDocument:
    """End the pause and any stop in an open store. Raises Refused, and ends nothing, if the store is
    a copy that nobody has adopted.
    """
    switch.require_adopted()
    if (stop_request := store.requests.active_stop()) is not None:
        store.requests.end(stop_request.id, RequestState.RELEASED, now_s)
    switch.resume(reason, now_s)
    state = switch.read()
    return {"paused": state.paused is not False, "hard": state.hard, "reason": state.reason}
