"""Why a token does not move: paused for all, shut to one address, or something that only its issuer knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.chain.abi import address_call, address_word, word
from agent.chain.ask import complete, page_calls
from agent.chain.lens import CallItem, pages, uint
from agent.chain.rpc import Transport
from agent.chain.screen_moves import Move
from agent.chain.screen_words import Answered, Result, answered
from agent.chain.wire import Call, hex_data
from agent.model import Finding, StepInput

NOBODY = "0x000000000000000000000000000000007472696D"
"""An address that nobody has reason to shut out."""
_PAUSED = bytes.fromhex("5c975abb")
_LISTS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
_TRANSFER, _TRANSFER_FROM = bytes.fromhex("a9059cbb"), bytes.fromhex("23b872dd")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A single call that did not go through: of which move, made for whom ("payee", "wallet", "spender"), and how it ended."""

    move: Move
    who: str
    how: Answered | None


def explain(line: Transport, step: StepInput, move: Move, result: Result, suspects: Sequence[Suspect], at: object) -> Result:
    """The finding for one token that could not be tried, or that some calls refused; asks in one request more."""
    if result[0] is not Finding.UNKNOWN and not result[0].accepted:
        return result
    if any(one.how in (Answered.FALSE, Answered.ODD) for one in suspects):
        return Finding.FALSE_RETURNING, "a transfer answered false, or neither true nor nothing"
    wallet, places = step.snapshot.owner, {step.snapshot.owner: "the wallet"}
    for one in (move, *(suspect.move for suspect in suspects)):
        places |= {one.pool.address: f"pool {one.pool.address}", one.payee or wallet: places.get(one.payee or wallet, "the router")}
        places |= {one.spender or wallet: places.get(one.spender or wallet, "the router")}
    items = [CallItem(move.token, _PAUSED)]
    items += [CallItem(move.token, address_call(bytes.fromhex(view), address)) for address in places for view in _LISTS]
    sized = pages(items)
    held = next((held.raw for held in step.snapshot.holdings if held.token == move.token), 0)
    calls = [
        _as(move.token, move.pool.address, _TRANSFER + address_word(NOBODY) + word(move.raw), at),
        _as(move.token, wallet, _TRANSFER + address_word(NOBODY) + word(min(held, move.raw)), at),
        _as(move.token, NOBODY, _TRANSFER_FROM + address_word(wallet) + address_word(move.pool.address) + word(0), at),
    ]
    told = line.batch([*calls, *page_calls(items, sized, at)])
    by_pool, by_wallet, by_nobody = (answered(answer) for answer in told[:3])
    said = [uint(answer) for answer in complete(line, items, sized, told[3:], at)]
    if said[0] == 1:
        return Finding.PAUSED, "paused() says so"
    for number, place in enumerate(places.values()):
        if 1 in said[1 + number * len(_LISTS) : 1 + (number + 1) * len(_LISTS)]:
            return Finding.BLOCKLISTED, f"{place} is on its list"
    if Answered.FALSE in (by_pool, by_wallet) or Answered.ODD in (by_pool, by_wallet):
        return Finding.FALSE_RETURNING, "a transfer answered false, or neither true nor nothing"
    if result[0] is Finding.UNKNOWN:
        return _not_lent(move, result, by_pool, by_wallet if held else None)
    return _refused(result, suspects, by_nobody)


def _as(token: str, sender: str, data: bytes, at: object) -> Call:
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(data)}, at]


def _not_lent(move: Move, result: Result, by_pool: Answered | None, by_wallet: Answered | None) -> Result:
    """The pool did not lend it."""
    if by_pool is not Answered.FAILED:
        return result
    if by_wallet in (Answered.TRUE, Answered.SILENT):
        return Finding.BLOCKLISTED, f"pool {move.pool.address} may not send it"
    return Finding.PAUSED, "pools cannot send it" if by_wallet is None else "neither pools nor the wallet can send it"


def _refused(result: Result, suspects: Sequence[Suspect], by_nobody: Answered | None) -> Result:
    """Between strangers it moves; one of ours could not move it."""
    for one in suspects:
        if one.how is None:
            return Finding.UNKNOWN, "the endpoint runs no call from there"
        if one.who == "payee":
            return Finding.BLOCKLISTED, f"{one.move.payee} may not receive it from pool {one.move.pool.address}"
        if one.who == "wallet":
            return Finding.BLOCKLISTED, f"the wallet may not send it into pool {one.move.pool.address}"
        if by_nobody in (Answered.TRUE, Answered.SILENT):
            return Finding.BLOCKLISTED, f"{one.move.spender} may not spend it"
    return result  # a token that moves no zero: nothing was approved yet, so nothing more could be tried
