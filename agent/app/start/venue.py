"""The futures venue before the first trade. Checks for `trimtab doctor`: collateral, linked
contract addresses, the implementation behind each proxy; on Hyperliquid the account and its agent.
The agent's key: created, stored like other keys, and approved by the wallet on the venue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eth_account import Account

from agent import wiring
from agent.app.documents.owner import FAIL, OK, WARN, CheckLine
from agent.app.start.wallet import Ask, PasswordSource, new_password, stated_address
from agent.chain.lens import (
    BALANCE_OF,
    CallItem,
    CallStatus,
    address_call,
    answer_uint,
    query_lens,
)
from agent.chain.perpetuals import (
    AGGREGATOR,
    CHAINLINK_FEED,
    GET_SETTLEMENT_TOKEN,
    PRICE_FEED,
)
from agent.chain.tokens import UNREAD_ADDRESS, answered_address
from agent.config.loaded import LoadedConfig
from agent.config.secrets.key_sources import agent_key_source, stored_key_text
from agent.config.tables.futures import HyperliquidTable, PerpetualProtocolTable
from agent.errors import ConfigError, Refused
from agent.files import sync_folder
from agent.layers.futures.policy.needs import agent_key_ends_soon
from agent.layers.futures.state import margin_account
from agent.margin import account as margin
from agent.model import FuturesReading, Portfolio, Snapshot
from agent.signing import keys
from agent.signing.calldata import selector
from agent.signing.secret import PrivateKey, disable_core_dumps
from agent.units import decimal_text, format_time, safe_label

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.owner import AgentApprovalDocument, MarketNumberDocument


CONTRACT_LINKS = (
    ("clearing_house", "getVault()", "vault"),
    ("clearing_house", "getExchange()", "exchange"),
    ("clearing_house", "getAccountBalance()", "account_balance"),
    ("clearing_house", "getClearingHouseConfig()", "config"),
    ("clearing_house", "getDelegateApproval()", "delegate_approval"),
    ("exchange", "getMarketRegistry()", "market_registry"),
    ("vault", "getClearingHouse()", "clearing_house"),
    ("vault", "getAccountBalance()", "account_balance"),
)
"""(contract, view, key of [futures] that its answer must equal)."""
_DECIMALS_SELECTOR = selector("decimals()")
_HAS_POOL_SELECTOR = selector("hasPool(address)")


def venue_checks(
    context: wiring.AgentContext, snapshot: Snapshot, portfolio: Portfolio
) -> Iterator[CheckLine]:
    """Yield a row for each part of the venue; none without [futures]."""
    futures_table = context.config.futures
    if futures_table is None:
        return
    if isinstance(futures_table, HyperliquidTable):
        yield from _hyperliquid_checks(context, snapshot, futures_table)
        return
    yield from _collateral_checks(context, snapshot, portfolio, futures_table)
    yield from _address_checks(context, futures_table)
    yield from _market_checks(context, futures_table)
    yield from _implementation_checks(context, snapshot, futures_table.contract_name_by_address)


def _hyperliquid_checks(
    context: wiring.AgentContext, unread_snapshot: Snapshot, futures_table: HyperliquidTable
) -> Iterator[CheckLine]:
    """Read the account, and look for the approved agent."""
    order_venue = context.order_venue()
    if order_venue is None:
        return
    snapshot = order_venue.read(unread_snapshot)
    if (account := margin_account(snapshot)) is None:
        unknown_reason = snapshot.layer(FuturesReading).unknown_reason
        yield (
            "futures account",
            FAIL,
            unknown_reason,
            "no orders are sent until the margin account is known",
        )
        return
    account_value_text = decimal_text(margin.account_value_raw(account), account.quote.decimals)
    finding = f"{account_value_text} {account.quote.label} on the {futures_table.network}, {len(account.positions)} positions"
    if margin.account_value_raw(account) > 0:
        yield "futures account", OK, finding, ""
    else:
        yield "futures account", WARN, finding, "deposit USDC at the venue before the first order"
    remedy = "trimtab delegate --send"
    if blocked_reason := snapshot.layer(FuturesReading).blocked_reason:
        yield "futures agent", WARN, blocked_reason, remedy
    else:
        finding = f"{futures_table.agent_name}, approved until {format_time(snapshot.layer(FuturesReading).key_approval_expires_s)}"
        if agent_key_ends_soon(snapshot):
            yield "futures agent", WARN, finding, remedy
        else:
            yield "futures agent", OK, finding, ""
    yield _agent_key_check(context.loaded_config)


def list_markets(
    context: wiring.AgentContext,
) -> tuple[list[MarketNumberDocument], dict[str, int]]:
    """Return the number of each market of an off-chain venue that is configured, renumbered or new
    since the last pins, and the numbers of all its markets by name. Both are empty for another
    venue. Raises Retryable if the venue does not answer, Refused for a configured market that it
    does not have.
    """
    futures_table = context.config.futures
    if not isinstance(futures_table, HyperliquidTable):
        return [], {}
    market_numbers = wiring.listed_market_numbers(futures_table)
    pinned_numbers = context.store.trust.market_numbers(futures_table.network)
    configured_names = [market.venue_key for market in futures_table.markets]
    for market_name in configured_names:
        if market_name not in market_numbers:
            raise Refused(
                f"futures.markets: {futures_table.venue} lists no market {market_name}",
                remedy="correct its symbol, as listed by the venue",
            )
    differing_names = [
        market_name
        for market_name in market_numbers
        if pinned_numbers and pinned_numbers.get(market_name) != market_numbers[market_name]
    ]
    market_documents: list[MarketNumberDocument] = [
        {
            "market": safe_label(market_name, "a market without a printable name"),
            "number": market_numbers[market_name],
            "state": pin_state(pinned_numbers.get(market_name), market_numbers[market_name]),
        }
        for market_name in dict.fromkeys((*configured_names, *differing_names))
    ]
    return market_documents, market_numbers


def pin_state(pinned_identity: object, current_identity: object) -> str:
    """Return whether what is present is pinned, new, or differs from its pin."""
    if pinned_identity is None:
        return "new"
    return "unchanged" if pinned_identity == current_identity else "CHANGED"


def pin_markets(context: wiring.AgentContext, market_numbers: Mapping[str, int]) -> None:
    """Pin the market numbers of an off-chain venue; the owner has confirmed them."""
    futures_table = context.config.futures
    if isinstance(futures_table, HyperliquidTable):
        context.store.trust.pin_markets(futures_table.network, market_numbers)


def _agent_key_check(loaded_config: LoadedConfig) -> CheckLine:
    """Check that the agent key exists, without loading it."""
    check_name = "futures agent key"
    delegate_command = "trimtab delegate --send"
    try:
        source = agent_key_source(loaded_config)
        if not isinstance(source, keys.KeystoreFile):
            return check_name, OK, stored_key_text(source, delegate_command), ""
    except ConfigError as error:
        return check_name, WARN, error.message, error.remedy
    keystore_path = source.path
    if not keystore_path.is_file():
        return check_name, WARN, f"{keystore_path} does not exist", delegate_command
    if (file_mode := keystore_path.stat().st_mode & 0o777) & 0o077:
        return (
            check_name,
            FAIL,
            f"{keystore_path} is readable by others (mode {file_mode:04o})",
            f"chmod 600 {keystore_path}",
        )
    return check_name, OK, f"keystore {keystore_path}", ""


def _collateral_checks(
    context: wiring.AgentContext,
    snapshot: Snapshot,
    portfolio: Portfolio,
    futures_table: PerpetualProtocolTable,
) -> Iterator[CheckLine]:
    """Compare the vault's token and decimals with the configured collateral, and show balances."""
    check_name = "futures collateral"
    collateral = next(
        asset.token for asset in portfolio.assets if asset.token.symbol == futures_table.collateral
    )
    token_answer, decimals_answer, balance_answer = query_lens(
        context.transport,
        [
            CallItem(futures_table.vault, GET_SETTLEMENT_TOKEN),
            CallItem(futures_table.vault, _DECIMALS_SELECTOR),
            CallItem(collateral.address, address_call(BALANCE_OF, futures_table.vault)),
        ],
    )
    if (settlement_address := answered_address(token_answer)) == UNREAD_ADDRESS:
        yield _unread_line(check_name, "the vault's collateral")
        return
    if settlement_address != collateral.address:
        finding = f"the vault's collateral is {settlement_address}, but the config has {collateral.label} at {collateral.address}"
        yield check_name, FAIL, finding, "correct futures.collateral, or the venue's addresses"
        return
    if isinstance(vault_decimals := answer_uint(decimals_answer, 8), CallStatus):
        yield _unread_line(check_name, "the vault's decimals")
        return
    if vault_decimals != collateral.decimals:
        finding = f"the vault uses {vault_decimals} decimals, {collateral.label} has {collateral.decimals}"
        yield check_name, FAIL, finding, "correct the venue's addresses"
        return
    account = margin_account(snapshot)
    vault_balance_raw = answer_uint(balance_answer, 256)
    if account is None or not isinstance(vault_balance_raw, int):
        unknown_reason = (
            snapshot.layer(FuturesReading).unknown_reason or "the vault's balance could not be read"
        )
        yield (
            check_name,
            FAIL,
            unknown_reason,
            "no orders are sent until the margin account is known",
        )
        return
    margin_raw = account.collateral_raw // account.collateral_unit_raw
    wallet_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == collateral.address),
        0,
    )
    margin_text, wallet_text, vault_text = (
        decimal_text(amount_raw, collateral.decimals)
        for amount_raw in (margin_raw, wallet_raw, vault_balance_raw)
    )
    finding = f"{margin_text} {collateral.label} in the vault, {wallet_text} in the wallet, {collateral.decimals} decimals"
    if margin_raw > vault_balance_raw:
        finding += f"; the vault holds {vault_text} in total"
        yield (
            check_name,
            WARN,
            finding,
            "the venue is short of tokens: withdraw the free collateral",
        )
    elif margin_raw <= 0:
        yield check_name, WARN, finding, "deposit collateral before the first order"
    else:
        yield check_name, OK, finding, ""


def _address_checks(
    context: wiring.AgentContext, futures_table: PerpetualProtocolTable
) -> Iterator[CheckLine]:
    """Compare the addresses that the contracts name with those of the config."""
    view_calls = [
        CallItem(getattr(futures_table, contract_key), selector(view))
        for contract_key, view, _ in CONTRACT_LINKS
    ]
    check_name = "futures contracts"
    mismatches = []
    unread_views = []
    for (contract_key, view, linked_key), address_answer in zip(
        CONTRACT_LINKS, query_lens(context.transport, view_calls), strict=True
    ):
        linked_address = answered_address(address_answer)
        configured_address = getattr(futures_table, linked_key)
        if linked_address == UNREAD_ADDRESS:
            unread_views.append(f"{contract_key}.{view}")
        elif linked_address != configured_address:
            mismatches.append(
                f"{contract_key}.{view} is {linked_address}, futures.{linked_key} is {configured_address}"
            )
    if mismatches:
        remedy = "correct the addresses of [futures]: the contracts belong to two deployments"
        yield check_name, FAIL, "; ".join(mismatches), remedy
    elif unread_views:
        yield _unread_line(check_name, ", ".join(unread_views))
    else:
        yield check_name, OK, f"{len(CONTRACT_LINKS)} links between the contracts agree", ""


def _unread_line(check_name: str, subject: str) -> CheckLine:
    return (
        check_name,
        WARN,
        f"could not be read: {subject}",
        "make sure that the addresses of [futures] are contracts of this chain, then run trimtab doctor again",
    )


def _market_checks(
    context: wiring.AgentContext, futures_table: PerpetualProtocolTable
) -> Iterator[CheckLine]:
    """Compare each market's registration and index aggregator with the config."""
    transport = context.transport
    base_tokens = [market.base for market in futures_table.markets]
    listed_answers = query_lens(
        transport,
        [
            CallItem(futures_table.market_registry, address_call(_HAS_POOL_SELECTOR, base_token))
            for base_token in base_tokens
        ],
    )
    index_sources = base_tokens
    for view in (PRICE_FEED, CHAINLINK_FEED, AGGREGATOR):
        address_answers = query_lens(
            transport, [CallItem(contract, view) for contract in index_sources]
        )
        index_sources = [answered_address(address_answer) for address_answer in address_answers]
    for market, listed_answer, aggregator in zip(
        futures_table.markets, listed_answers, index_sources, strict=True
    ):
        check_name = f"futures market {market.symbol}"
        if isinstance(listed_flag := answer_uint(listed_answer, 8), CallStatus):
            yield _unread_line(check_name, "the registry")
        elif listed_flag != 1:
            finding = f"the registry does not list {market.base}"
            yield check_name, FAIL, finding, f"correct futures.markets.{market.symbol}.base"
        elif aggregator == UNREAD_ADDRESS:
            finding = "the aggregator behind its index could not be read"
            yield check_name, WARN, finding, f"make sure that {market.aggregator} is its index feed"
        elif aggregator != market.aggregator:
            finding = f"its index comes from {aggregator}, but the config has {market.aggregator}"
            yield check_name, FAIL, finding, f"correct futures.markets.{market.symbol}.aggregator"
        else:
            yield check_name, OK, f"listed, index by {aggregator}", ""


def _implementation_checks(
    context: wiring.AgentContext, snapshot: Snapshot, contract_name_by_address: Mapping[str, str]
) -> Iterator[CheckLine]:
    """Compare the implementation behind each proxy of the venue with its pin."""
    pinned_implementations = context.store.trust.implementations()
    code_hashes = {code_entry.address: code_entry.hash for code_entry in snapshot.code_hashes}
    implementations = [
        implementation
        for implementation in snapshot.implementations
        if implementation.proxy in contract_name_by_address
    ]
    for implementation in implementations:
        check_name = f"proxy {contract_name_by_address[implementation.proxy]}"
        address = implementation.address
        code_hash = code_hashes.get(address, "")
        pinned_address, pinned_hash = pinned_implementations.get(implementation.proxy, ("", ""))
        remedy = "find out why, then: trimtab trust"
        if address == UNREAD_ADDRESS:
            yield _unread_line(check_name, "the implementation")
        elif not pinned_address:
            yield check_name, WARN, f"implementation {address} is not pinned", "trimtab trust"
        elif address != pinned_address:
            finding = f"implementation {address} differs from the pinned {pinned_address}"
            yield check_name, FAIL, finding, remedy
        elif not code_hash:
            yield _unread_line(check_name, f"the code of implementation {address}")
        elif code_hash != pinned_hash:
            finding = f"the code of implementation {address} differs from the pinned one"
            yield check_name, FAIL, finding, remedy
        else:
            yield check_name, OK, f"implementation {address}, pinned", ""
    if not implementations:
        yield "futures proxies", OK, "no contract of the venue is a proxy", ""


DEFAULT_DAYS = 90
MAX_DAYS = 179
"""Default and maximum days of an approval. The venue accepts less than 180 days by its own clock.
"""
DAY_MS = 86_400_000
PASSWORD_VARIABLE = "TRIMTAB_AGENT_PASSWORD"  # noqa: S105 the name of a variable

Confirm = Callable[["AgentApprovalDocument"], bool]


@dataclass(frozen=True, slots=True)
class _KeyLocation:
    """Location of the agent's key in the config: a file, a keyring entry (service, name), or a
    variable if both are None. `key_address` is that of the stored key, "" without one.
    """

    file: Path | None
    keyring_entry: tuple[str, str] | None
    key_address: str
    description: str


def uses_agent_key(agent: Agent) -> bool:
    """Return whether the futures venue is traded with an agent's key."""
    return isinstance(agent.context.config.futures, HyperliquidTable)


def approve_agent_key(
    agent: Agent,
    days: int | None,
    *,
    revokes: bool,
    send: bool,
    confirm: Confirm,
    ask: Ask | None,
) -> AgentApprovalDocument:
    """Approve the agent's key for `days`, with `send` and a confirmation; otherwise only preview.

    A key that was an agent approval is never approved again. A new one is created in its place, and
    the old file is kept beside it. If an earlier run was interrupted after the venue approved its
    key, that key is put in place and no other is approved. Raises ConfigError, Refused, Retryable.
    """
    futures_table = _require_hyperliquid_table(agent, revokes=revokes)
    disable_core_dumps()
    approver = wiring.AgentApprover(agent.context, futures_table)
    approver.require_account()
    approval = approver.approved_agent()
    key_location = _key_location(agent, futures_table)
    interrupted_file = (
        None if approval is None else _interrupted_key_file(key_location, approval.address)
    )
    is_unused = (
        interrupted_file is None
        and bool(key_location.key_address)
        and approver.is_fresh(key_location.key_address)
    )
    if (
        interrupted_file is None
        and key_location.key_address
        and not is_unused
        and key_location.file is None
    ):
        raise ConfigError(
            f"the key {key_location.key_address} in {key_location.description} is known to the venue"
            " or was posted for approval before; agent keys are never used twice",
            "name another entry or variable in [futures]",
        )
    now_ms = agent.context.clock.now_s() * 1000
    until_ms = now_ms + (days or DEFAULT_DAYS) * DAY_MS
    approval_document: AgentApprovalDocument = {
        "outcome": "planned",
        "account": agent.context.config.wallet.address,
        "network": futures_table.network,
        "name": futures_table.agent_name,
        "agent": key_location.key_address if is_unused else None,
        "key": key_location.description,
        "until": format_time(until_ms // 1000),
        "replaces": None if approval is None else approval.address,
        "kept": None,
    }
    if approval is not None and interrupted_file is not None:
        until_text = format_time(approval.valid_until_ms // 1000)
        approval_document = {
            **approval_document,
            "agent": approval.address,
            "until": until_text,
            "replaces": None,
        }
    if not send:
        return approval_document
    agent.context.kill_switch.require_off()
    if not confirm(approval_document):
        return {**approval_document, "outcome": "declined"}
    signer = approver.load_signer()
    session = wiring.open_wallet_session(
        agent.context, lambda _: False, lambda _: None, signs=False
    )
    with session.open_transactor():
        agent.context.kill_switch.require_off()
        if approval is not None and interrupted_file is not None:
            if approver.approved_agent() != approval:
                raise Refused("the approval has changed meanwhile", remedy="run it again")
            agent.context.store.trust.record_agent_expiry(approval.address, approval.valid_until_ms)
            old_file = _put_in_place(interrupted_file, key_location)
            return {
                **approval_document,
                "outcome": "done",
                "kept": None if old_file is None else str(old_file),
            }
        if is_unused:
            agent_key = keys.load_key(
                agent_key_source(agent.context.loaded_config), _chain_id(agent), ask=ask
            )
            new_approval = approver.approve(signer, agent_key.address, until_ms)
            return {**approval_document, "outcome": "done", "agent": new_approval.address}
        new_address, new_file = _create_key(
            key_location, agent.context.loaded_config.variables, ask
        )
        try:
            approver.approve(signer, new_address, until_ms)
        except Refused:
            if new_file is not None:
                new_file.unlink()
            raise
        old_file = None if new_file is None else _put_in_place(new_file, key_location)
    return {
        **approval_document,
        "outcome": "done",
        "agent": new_address,
        "kept": None if old_file is None else str(old_file),
    }


def _require_hyperliquid_table(agent: Agent, *, revokes: bool) -> HyperliquidTable:
    """Return [futures] of the venue. Raises ConfigError if it approves no keys, or on paper."""
    futures_table = agent.context.config.futures
    if not isinstance(futures_table, HyperliquidTable):
        raise ConfigError("delegate: the futures venue has no agent keys", "omit it")
    if revokes:
        raise ConfigError(
            "--end: Hyperliquid documents no action to revoke an agent",
            "remove it on the venue's API page, or approve another key under its name: trimtab"
            " delegate --send",
        )
    if agent.on_paper:
        raise ConfigError("delegate: not available on paper", "omit --paper")
    return futures_table


def _key_location(agent: Agent, futures_table: HyperliquidTable) -> _KeyLocation:
    """Return the key's location and address. Raises ConfigError."""
    if futures_table.agent_keystore is not None:
        keystore_path = agent.context.loaded_config.path.parent / futures_table.agent_keystore
        file_exists = os.path.lexists(keystore_path)
        address = (
            stated_address(keys.read_private_file(keystore_path), keystore_path)
            if file_exists
            else ""
        )
        return _KeyLocation(keystore_path, None, address, f"keystore {keystore_path}")
    if futures_table.agent_keyring is not None:
        service, entry_name = futures_table.agent_keyring.split("/")
        keyring_entry = (service, entry_name)
        address = (
            keys.load_from_keyring(keyring_entry).address
            if keys.is_in_keyring(keyring_entry)
            else ""
        )
        return _KeyLocation(None, keyring_entry, address, f"keyring {futures_table.agent_keyring}")
    key_source = agent_key_source(agent.context.loaded_config)
    address = keys.load_key(key_source, _chain_id(agent), ask=None).address
    return _KeyLocation(None, None, address, f"variable {futures_table.agent_key_env}")


def _interrupted_key_file(key_location: _KeyLocation, approved_address: str) -> Path | None:
    """Return the file of the approved key if an approval was interrupted before that file had its
    final name; None otherwise. Raises ConfigError if the file has another key.
    """
    if key_location.file is None or key_location.key_address == approved_address:
        return None
    interrupted_file = _file_beside(key_location.file, approved_address)
    if not os.path.lexists(interrupted_file):
        return None
    if (
        file_address := stated_address(keys.read_private_file(interrupted_file), interrupted_file)
    ) != approved_address:
        raise ConfigError(f"{interrupted_file} has the key {file_address}", "rename it")
    return interrupted_file


def _create_key(
    key_location: _KeyLocation, variables: Mapping[str, str], ask: Ask | None
) -> tuple[str, Path | None]:
    """Create a key and store it. Return its address and file; the file has a temporary name until
    the key is approved. Raises ConfigError.
    """
    agent_key = PrivateKey(Account.create())
    if key_location.keyring_entry is not None:
        keys.save_to_keyring(key_location.keyring_entry, agent_key)
        return agent_key.address, None
    if key_location.file is None:
        raise ConfigError("futures: nowhere to store a new agent key", "set futures.agent_keystore")
    keystore_path = _file_beside(key_location.file, agent_key.address)
    password_variable = PASSWORD_VARIABLE if variables.get(PASSWORD_VARIABLE) else None
    password_source = PasswordSource(
        password_variable,
        env_option=f"export {PASSWORD_VARIABLE}, or --password-env",
        variables=variables,
    )
    keys.write_keystore(
        keystore_path, agent_key, new_password(password_source, _ask_naming(key_location.file, ask))
    )
    return agent_key.address, keystore_path


def _put_in_place(new_file: Path, key_location: _KeyLocation) -> Path | None:
    """Rename the new key's file to its final name. Return the new path of the old file, None
    without one.
    """
    if key_location.file is None:
        return None
    old_file = (
        _file_beside(key_location.file, key_location.key_address)
        if key_location.key_address
        else None
    )
    if old_file is not None:
        keys.require_free_path(old_file)
        key_location.file.rename(old_file)
    new_file.rename(key_location.file)
    sync_folder(key_location.file.parent)
    return old_file


def _file_beside(keystore_path: Path, address: str) -> Path:
    """Return the path of a key's file beside the one in use: its name, followed by the address."""
    return keystore_path.with_name(f"{keystore_path.name}.{address}")


def _ask_naming(keystore_path: Path, ask: Ask | None) -> Ask | None:
    return (
        None
        if ask is None
        else lambda question_text: ask(f"Agent key {keystore_path.name}. {question_text}")
    )


def _chain_id(agent: Agent) -> int:
    return agent.context.config.chain.chain_id
