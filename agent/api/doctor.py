"""Looks at everything a run needs and says what to do about what is missing; changes nothing but an empty store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent import wiring
from agent.api.setup import EMPTY_CODE, NO_CODE
from agent.chain.rpc import Transport
from agent.config.load import LoadedConfig, load_config
from agent.errors import EXIT_OK, EXIT_REFUSED, ConfigError, TrimtabError
from agent.model import Snapshot, StepInput
from agent.reference import reference_prices
from agent.units import decimal_text, price_text

Document = dict[str, Any]
MAX_CLOCK_SKEW_S = 30
OK, NOTE, FAIL = "ok", "warn", "fail"
Row = tuple[str, str, str, str]


def doctor(
    config: LoadedConfig | Path | str, transports: Sequence[Transport] | None = None, now_s: Callable[[], float] = time.time
) -> Document:
    """All checks as {check, state, found, remedy}; exit is 0 when none fails."""
    rows = list(_checks(config, transports, now_s))
    return {
        "checks": [{"check": c, "state": s, "found": f, "remedy": r} for c, s, f, r in rows],
        "exit": EXIT_REFUSED if any(state == FAIL for _, state, _, _ in rows) else EXIT_OK,
    }


def _checks(config: LoadedConfig | Path | str, transports: Sequence[Transport] | None, now_s: Callable[[], float]) -> Iterator[Row]:
    try:
        loaded = config if isinstance(config, LoadedConfig) else load_config(config)
    except TrimtabError as error:
        yield "config", FAIL, error.message, error.remedy or "correct the file"
        return
    yield "config", OK, f"{loaded.path.name}, sha256 {loaded.digest[:12]}", ""
    yield _key(loaded)
    try:
        lines = tuple(transports) if transports is not None else wiring.open_transports(loaded.config)
    except ConfigError as error:
        yield "endpoints", FAIL, error.message, error.remedy
        return
    reachable = True
    for line in lines:
        row = _endpoint(line, loaded.config.chain.chain_id, now_s)
        reachable = reachable and row[1] != FAIL
        yield row
    yield _operators(loaded)
    if not reachable:
        return
    try:
        with wiring.open_desk(loaded, lines, untrusted_pools=True) as desk:
            yield "store", OK, str(wiring.store_file(loaded)), ""
            snapshot = desk.reader.snapshot()
            step = desk.assemble(snapshot, desk.store.history(snapshot.head.timestamp_s))
            yield from _contracts(desk, snapshot)
            yield from _holdings(desk, step)
            yield from _money(desk, snapshot)
            stopped = desk.switch.read()
            paused = "paused: " + stopped.reason if stopped.paused is not False else "not paused"
            yield (
                "kill switch",
                NOTE if stopped.paused is not False else OK,
                paused,
                "trimtab resume" if stopped.paused is not False else "",
            )
    except TrimtabError as error:
        yield "reading", FAIL, error.message, error.remedy or "see the message"


def _key(loaded: LoadedConfig) -> Row:
    """Whether a key source is there, without opening it: doctor asks for no password."""
    path = loaded.keystore_path
    if path is not None:
        if not path.is_file():
            return "key", NOTE, f"{path} does not exist", "put the keystore there before --send"
        if path.stat().st_mode & 0o077:
            return "key", FAIL, f"{path} can be read by others (mode {path.stat().st_mode & 0o777:04o})", f"chmod 600 {path}"
        return "key", OK, f"keystore {path}", ""
    try:
        wiring.key_source(loaded)
    except ConfigError as error:
        return "key", NOTE, error.message, error.remedy
    return "key", OK, "a key source is configured", ""


def _endpoint(line: Transport, chain_id: int, now_s: Callable[[], float]) -> Row:
    name = f"endpoint {line.operator}"
    try:
        started = time.monotonic()
        found = int(line.call("eth_chainId", []), 16)
        took_ms = (time.monotonic() - started) * 1000
        head_s = int(line.call("eth_getBlockByNumber", ["latest", False])["timestamp"], 16)
    except TrimtabError as error:
        return name, FAIL, error.message, error.remedy or "check the URL and the network"
    if found != chain_id:
        return name, FAIL, f"chain {found}, the config says {chain_id}", "correct chain.chain_id or the endpoint"
    skew_s = head_s - int(now_s())
    if skew_s > MAX_CLOCK_SKEW_S:
        return name, FAIL, f"its head is {skew_s} s in the future", "set this machine's clock (NTP)"
    return name, OK, f"chain {found}, {took_ms:.0f} ms, head {-skew_s} s old", ""


def _operators(loaded: LoadedConfig) -> Row:
    chain = loaded.config.chain
    distinct = {endpoint.operator for endpoint in chain.rpc}
    if len(distinct) >= chain.min_operators:
        return "quorum", OK, f"{len(distinct)} operator(s), {chain.min_operators} needed", ""
    return (
        "quorum",
        FAIL,
        f"{len(distinct)} operator(s), {chain.min_operators} must agree",
        "add an endpoint of another operator, or set single_operator",
    )


def _contracts(desk: wiring.Desk, snapshot: Snapshot) -> Iterator[Row]:
    hashes = {code.address: code.hash for code in snapshot.code_hashes}
    called = (*desk.execution.pinned, *(pool.address for pool in desk.pools))
    bare = [address for address in called if hashes.get(address, NO_CODE) in (NO_CODE, EMPTY_CODE)]
    if bare:
        yield "contracts", FAIL, f"no code at {', '.join(bare)}", "correct these addresses in the config"
    pins = {pin.address: pin.code_hash for pin in desk.store.pins()}
    missing = [address for address in called if address not in pins]
    changed = [address for address, pinned in pins.items() if address in hashes and hashes[address] != pinned]
    if changed:
        yield "trust", FAIL, f"code changed at {', '.join(changed)}", "find out why before: trimtab trust"
    elif missing:
        yield "trust", NOTE, f"{len(missing)} of {len(called)} contracts are not pinned", "trimtab trust"
    else:
        yield "trust", OK, f"{len(pins)} contracts pinned by code hash", ""
    if not desk.pools:
        yield "pools", FAIL, "no pool between any two of the tokens", "check the factories, or add a hub token"
    else:
        yield "pools", OK, f"{len(desk.pools)} found", ""
    for item in snapshot.quarantined:
        yield item.item, FAIL, f"{item.address}: {item.why}", "while it fails, nothing is traded; correct or remove it"


def _holdings(desk: wiring.Desk, step: StepInput) -> Iterator[Row]:
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    references = reference_prices(step)
    decimals = desk.portfolio.numeraire.decimals
    for asset in desk.portfolio.assets:
        token = asset.token
        if token.address not in held:
            continue
        price = references.prices.get(token.address)
        if price is None:
            why = next((u.why for u in references.unpriced if u.token == token.address), "no reference price")
            yield f"token {token.label}", FAIL, why, "add a feed, or a V3 pool with enough observations"
            continue
        each = price_text(price.price, token.decimals, decimals, 8)
        found = f"{decimal_text(held[token.address], token.decimals)} at {each} by {price.source.value}"
        yield f"token {token.label}", OK if held[token.address] else NOTE, found, "" if held[token.address] else "the wallet holds none"
    if not any(held.values()):
        yield "portfolio", FAIL, "the wallet is empty", "send it some of the configured tokens"
    for allowance in step.snapshot.allowances:
        if allowance.raw:
            label = desk.portfolio.token(allowance.token).label
            yield f"allowance {label}", NOTE, f"{allowance.spender} may still take {allowance.raw} base units", "left from an earlier plan"


def _money(desk: wiring.Desk, snapshot: Snapshot) -> Iterator[Row]:
    floor = desk.limits.native_floor_wei or 0
    found = f"{decimal_text(snapshot.native_wei, 18)} native"
    if snapshot.native_wei <= floor:
        yield "gas money", FAIL, f"{found}, the floor is {decimal_text(floor, 18)}", "send the wallet more of the native coin"
    else:
        yield "gas money", OK, found, ""
    if snapshot.nonce_pending != snapshot.nonce_latest:
        yield "nonce", NOTE, f"{snapshot.nonce_pending - snapshot.nonce_latest} pending transaction(s)", "wait for them"
