"""The agent's key of a futures venue: created, stored like other keys, and approved by the wallet
on the venue.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eth_account import Account

from agent import wiring
from agent.app.start.wallet import Ask, Password, new_password, stated_address
from agent.config.futures import HyperliquidTable
from agent.config.load import agent_key_source
from agent.errors import ConfigError, Refused
from agent.files import sync_folder
from agent.model import Verdict
from agent.signing import keys
from agent.signing.secret import PrivateKey, disable_core_dumps
from agent.units import format_time

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.setup import AgentApprovalDocument

DAYS, MOST_DAYS = 90, 179
"""Default and maximum days of an approval. The venue accepts less than 180 days by its own clock.
"""
DAY_MS = 86_400_000
PASSWORD_VARIABLE = "TRIMTAB_AGENT_PASSWORD"  # noqa: S105 the name of a variable

Confirm = Callable[["AgentApprovalDocument"], bool]


@dataclass(frozen=True, slots=True)
class _Place:
    """Location of the agent's key in the config: a file, a keyring entry (service, name), or a
    variable if both are None. `address` is that of the stored key, "" without one.
    """

    file: Path | None
    entry: tuple[str, str] | None
    address: str
    text: str


def approves_agents(agent: Agent) -> bool:
    """Return whether the futures venue is traded with an agent's key."""
    return isinstance(agent.context.config.futures, HyperliquidTable)


def approve_agent_key(
    agent: Agent,
    days: int | None,
    *,
    ends: bool,
    send: bool,
    confirm: Confirm,
    ask: Ask | None,
) -> AgentApprovalDocument:
    """Approve the agent's key for `days`, with `send` and a confirmation; otherwise only preview.

    A key that was an agent before is never approved again. A new one is created in its place, and
    the old file is kept beside it. If an earlier run was interrupted after the venue approved its
    key, that key is put in place and no other is approved. Raises ConfigError, Refused, Retryable.
    """
    table = _require_table(agent, ends=ends)
    disable_core_dumps()
    approver = wiring.AgentApprover(agent.context, table)
    approver.require_account()
    before, place = approver.approved(), _place(agent, table)
    left = None if before is None else _left_beside(place, before.address)
    is_fresh = left is None and bool(place.address) and approver.is_fresh(place.address)
    if left is None and place.address and not is_fresh and place.file is None:
        raise ConfigError(
            f"the key {place.address} in {place.text} was an agent before; agent keys are never"
            f" used"
            " twice",
            "name another entry or variable in [futures]",
        )
    now_ms = agent.context.clock.now_s() * 1000
    until_ms = now_ms + (days or DAYS) * DAY_MS
    document: AgentApprovalDocument = {
        "outcome": "planned",
        "account": agent.context.config.wallet.address,
        "network": table.network,
        "name": table.agent_name,
        "agent": place.address if is_fresh else None,
        "key": place.text,
        "until": format_time(until_ms // 1000),
        "replaces": None if before is None else before.address,
        "kept": None,
    }
    if before is not None and left is not None:
        until = format_time(before.valid_until_ms // 1000)
        document = {**document, "agent": before.address, "until": until, "replaces": None}
    if not send:
        return document
    _require_running(agent)
    if not confirm(document):
        return {**document, "outcome": "declined"}
    signer = approver.load_signer()
    session = wiring.open_wallet_session(
        agent.context, lambda _: False, lambda _: None, signs=False
    )
    with session.held():
        _require_running(agent)
        if before is not None and left is not None:
            if approver.approved() != before:
                raise Refused("the approval has changed meanwhile", remedy="run it again")
            agent.context.store.trust.remember_agent(before.address, before.valid_until_ms)
            kept = _put_in_place(left, place)
            return {**document, "outcome": "done", "kept": None if kept is None else str(kept)}
        if is_fresh:
            key = keys.load_key(agent_key_source(agent.context.loaded), _chain(agent), ask=ask)
            approved = approver.approve(signer, key.address, until_ms)
            return {**document, "outcome": "done", "agent": approved.address}
        made, where = _create(place, ask)
        try:
            approver.approve(signer, made, until_ms)
        except Refused:
            if where is not None:
                where.unlink()
            raise
        kept = None if where is None else _put_in_place(where, place)
    return {
        **document,
        "outcome": "done",
        "agent": made,
        "kept": None if kept is None else str(kept),
    }


def _require_table(agent: Agent, *, ends: bool) -> HyperliquidTable:
    """Return [futures] of the venue. Raises ConfigError if it approves no keys, or on paper."""
    table = agent.context.config.futures
    if not isinstance(table, HyperliquidTable):
        raise ConfigError("delegate: the futures venue has no agent keys", "omit it")
    if ends:
        raise ConfigError(
            "--end: Hyperliquid documents no action to revoke an agent",
            "remove it on the venue's API page, or approve another key under its name: trimtab"
            " delegate --send",
        )
    if agent.on_paper:
        raise ConfigError("delegate: not available on paper", "omit --paper")
    return table


def _place(agent: Agent, table: HyperliquidTable) -> _Place:
    """Return the key's location and address. Raises ConfigError."""
    if table.agent_keystore is not None:
        file = agent.context.loaded.path.parent / table.agent_keystore
        held = os.path.lexists(file)
        address = stated_address(keys.read_private_file(file), file) if held else ""
        return _Place(file, None, address, f"keystore {file}")
    if table.agent_keyring is not None:
        service, name = table.agent_keyring.split("/")
        entry = (service, name)
        address = keys.load_from_keyring(entry).address if keys.in_keyring(entry) else ""
        return _Place(None, entry, address, f"keyring {table.agent_keyring}")
    source = agent_key_source(agent.context.loaded)
    address = keys.load_key(source, _chain(agent), ask=None).address
    return _Place(None, None, address, f"variable {table.agent_key_env}")


def _left_beside(place: _Place, approved: str) -> Path | None:
    """Return the file of the approved key if an approval was interrupted before that file had its
    final name; None otherwise. Raises ConfigError if the file has another key.
    """
    if place.file is None or place.address == approved:
        return None
    left = _beside(place.file, approved)
    if not os.path.lexists(left):
        return None
    if (stated := stated_address(keys.read_private_file(left), left)) != approved:
        raise ConfigError(f"{left} has the key {stated}", "rename it")
    return left


def _create(place: _Place, ask: Ask | None) -> tuple[str, Path | None]:
    """Create a key and store it. Return its address and file; the file has a temporary name until
    the key is approved. Raises ConfigError.
    """
    key = PrivateKey(Account.create())
    if place.entry is not None:
        keys.save_to_keyring(place.entry, key)
        return key.address, None
    if place.file is None:
        raise ConfigError("futures: nowhere to store a new agent key", "set futures.agent_keystore")
    file = _beside(place.file, key.address)
    keys.write_keystore(file, key, new_password(_password(), _naming(place.file, ask)))
    return key.address, file


def _put_in_place(new: Path, place: _Place) -> Path | None:
    """Rename the new key's file to its final name. Return the new path of the old file, None
    without one.
    """
    if place.file is None:
        return None
    kept = _beside(place.file, place.address) if place.address else None
    if kept is not None:
        keys.require_free_path(kept)
        place.file.rename(kept)
    new.rename(place.file)
    sync_folder(place.file.parent)
    return kept


def _beside(file: Path, address: str) -> Path:
    return file.with_name(f"{file.name}.{address}")


def _password() -> Password:
    found = PASSWORD_VARIABLE if os.environ.get(PASSWORD_VARIABLE) else None
    return Password(found, env_option=f"export {PASSWORD_VARIABLE}, or --password-env")


def _naming(file: Path, ask: Ask | None) -> Ask | None:
    return None if ask is None else lambda text: ask(f"Agent key {file.name}. {text}")


def _chain(agent: Agent) -> int:
    return agent.context.config.chain.chain_id


def _require_running(agent: Agent) -> None:
    """Raise Refused while the kill switch is on."""
    if agent.context.switch.is_paused() is not False:
        verdict = Verdict("kill_switch", "on", "off", False)
        raise Refused("the kill switch is on: nothing is sent", (verdict,), "trimtab resume")
