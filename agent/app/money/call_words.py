"""A call of a Safe in words, with coins, symbols and names where the config beside it knows them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.config.build import contract_names
from agent.config.schema import Config
from agent.model import SwapStyle, UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, is_batch, plain_calls
from agent.signing.calldata import (
    Approve,
    ExactInputSingle,
    FundsLocation,
    Multicall,
    ProgramLeg,
    Pull,
    RebalanceCall,
    SwapExactTokens,
    SweepToken,
    TransferCall,
    UndecodableCalldata,
    UnwrapWeth9,
    WithdrawWeth9,
    WrapEth,
    decode,
)
from agent.signing.swap_rules import ROUTER_ITSELF
from agent.units import NATIVE, UINT256_MAX, Token, decimal_text, format_time

WEI_DECIMALS = 18


@dataclass(frozen=True, slots=True)
class CallWords:
    """Names of addresses and tokens by address; what they lack is said to be unknown."""

    safe: str
    wrapped_native: str
    name_by_address: Mapping[str, str] = field(default_factory=dict)
    token_by_address: Mapping[str, Token] = field(default_factory=dict)

    def name(self, address: str) -> str:
        """Return an address with its name."""
        if address == self.safe:
            return f"this Safe ({address})"
        token = self.token_by_address.get(address)
        name = f"token {token.label}" if token else self.name_by_address.get(address, "unknown")
        return f"{address} ({name})"

    def amount(self, raw: int, token_address: str) -> str:
        """Return an amount of a token in coins, in base units if its decimals are not known."""
        token = self.token_by_address.get(token_address)
        unit = f"the token {self.name(token_address)}" if token is None else token.label
        if raw == UINT256_MAX:
            return f"any amount of {unit}"
        if token is None:
            return f"{raw} base units of {unit}"
        return f"{decimal_text(raw, token.decimals)} {unit}"

    def lines(self, tx: UnsignedTx) -> list[str]:
        """Return what a call of the Safe does, call by call, and for each swap the least that it must
        bring. Raises UndecodableCalldata for a batch that is none.
        """
        calls = plain_calls(tx.to, tx.data)
        lines = [line for call in calls for line in self._call_lines(call, tx.value_wei)]
        if is_batch(tx.to, tx.data):
            lines.insert(0, f"{len(calls)} calls, all or none, by {self.name(tx.to)}:")
        return lines

    def _call_lines(self, call: BatchedCall, value_wei: int) -> Iterator[str]:
        to_text = self.name(call.to)
        if value_wei:
            yield f"pays {decimal_text(value_wei, WEI_DECIMALS)} of native coin to {to_text}"
        elif not call.data and call.to == self.safe:
            yield "an empty call of this Safe to itself, which changes nothing but its nonce"
        elif not call.data:
            yield f"a call of {to_text} without data, which runs a contract's fallback function"
        if not call.data:
            return
        try:
            decoded_call: Any = decode(call.data)
        except UndecodableCalldata:
            warning = ""
            if call.to == self.safe:
                warning = ": it can change owners, threshold and modules"
            yield f"calls an unknown function {call.data_hex[:10]} of {to_text}{warning}"
            return
        match decoded_call:
            case Multicall(deadline_s, acts):
                yield f"calls {to_text}, not after {format_time(deadline_s)}:"
                yield from (f"  {line}" for line in self._act_lines(acts, call.to))
                yield from self._left_behind(acts, call.to)
            case RebalanceCall():
                yield f"calls {to_text}, not after {format_time(decoded_call.deadline_s)}:"
                yield from (f"  {self._leg(leg)}" for leg in decoded_call.legs)
                yield from self._bounds(decoded_call)
            case _:
                yield from self._act_lines([decoded_call], call.to)
                yield from self._left_behind([decoded_call], call.to)

    def _act_lines(self, acts: Sequence[Any], called: str) -> Iterator[str]:
        left_tokens = self._left_names(acts, called)
        return (self._act(act, called, left_tokens) for act in acts)

    def _left_behind(self, acts: Sequence[Any], router: str) -> Iterator[str]:
        """Yield a warning of what calls of a router leave in it."""
        if left_names := self._left_names(acts, router):
            yield (
                f"WARNING: {' and '.join(left_names.values())} stays in the router, where anyone can"
                " take it"
            )

    def _left_names(self, acts: Sequence[Any], router: str) -> dict[str, str]:
        """Return the names of the tokens that calls of a router leave in it, by address."""
        left_names: dict[str, str] = {}
        for act in acts:
            match act:
                case Pull(token):
                    left_names[token] = self.name(token)
                case WrapEth():
                    left_names[self.wrapped_native] = self.name(self.wrapped_native)
                case SweepToken(token, _, recipient) if not _is_router(recipient, router):
                    left_names.pop(token, None)
                case UnwrapWeth9(_, recipient):
                    left_names.pop(self.wrapped_native, None)
                    if _is_router(recipient, router):
                        left_names[NATIVE] = "native coin"
                case SwapExactTokens() | ExactInputSingle():
                    if not act.amount_in_raw:
                        left_names.pop(act.token_in, None)
                    if _is_router(act.recipient, router):
                        left_names[act.token_out] = self.name(act.token_out)
        return left_names

    def _leg(self, leg: ProgramLeg) -> str:
        sold_text = self.amount(leg.amount_raw, leg.token_in)
        if not leg.amount_raw:
            sold_text = f"all that it has of {self.name(leg.token_in)}"
        pool_text = ""
        if leg.style is not SwapStyle.NATIVE:
            pool_text = f", in a pool of {self.name(leg.maker.address)}"
        return f"sells {sold_text} for at least {self.amount(leg.min_out_raw, leg.token_out)}{pool_text}"

    def _bounds(self, program: RebalanceCall) -> Iterator[str]:
        """Yield how much of each token the Safe spends at most or receives at least."""
        for watched in program.watched_balances:
            verb = "receives at least" if watched.min_change_raw >= 0 else "spends at most"
            amount_text = self.amount(abs(watched.min_change_raw), watched.token)
            yield f"  this Safe {verb} {amount_text}"
        own_tokens = {leg.token_in for leg in program.legs if leg.source is FundsLocation.WALLET}
        own_tokens |= {leg.token_out for leg in program.legs if leg.sink is FundsLocation.WALLET}
        unbound = sorted(own_tokens & {*program.unwatched_tokens})
        if unbound:
            yield (
                "WARNING: nothing but the pools' word bounds what this Safe spends or receives of"
                f" {' and '.join(map(self.name, unbound))}"
            )

    def _act(self, act: Any, called: str, left_tokens: Container[str]) -> str:
        match act:
            case Approve(spender, raw):
                return f"lets {self.name(spender)} spend {self.amount(raw, called)}"
            case TransferCall(recipient, raw):
                return f"pays {self.amount(raw, called)} to {self.name(recipient)}"
            case WithdrawWeth9(raw):
                return f"unwraps {self.amount(raw, called)}"
            case Pull(token, raw):
                return f"takes {self.amount(raw, token)} from this Safe"
            case WrapEth(value_wei):
                return f"wraps {decimal_text(value_wei, WEI_DECIMALS)} of native coin"
            case SweepToken(token, min_raw, recipient):
                return f"pays at least {self.amount(min_raw, token)} to {self.name(recipient)}"
            case UnwrapWeth9(min_raw, recipient):
                amount_text = decimal_text(min_raw, WEI_DECIMALS)
                return f"pays at least {amount_text} of native coin to {self.name(recipient)}"
        return self._swap(act, called, left_tokens)

    def _swap(
        self, swap: SwapExactTokens | ExactInputSingle, router: str, left_tokens: Container[str]
    ) -> str:
        sold_text = self.amount(swap.amount_in_raw, swap.token_in)
        if not swap.amount_in_raw:
            sold_text = f"all that the router has of {self.name(swap.token_in)}"
        place_text = "to the router, which passes it on below"
        if swap.token_out in left_tokens:
            place_text = "kept in the router"
        if not _is_router(swap.recipient, router):
            place_text = f"paid to {self.name(swap.recipient)}"
        bought_text = self.amount(swap.min_out_raw, swap.token_out)
        return f"sells {sold_text} for at least {bought_text}, {place_text}"


def _is_router(recipient: str, router: str) -> bool:
    return recipient in (ROUTER_ITSELF, router)


def config_names(config: Config) -> dict[str, str]:
    """Return the names of the addresses that a config knows, besides tokens."""
    payees = dict.fromkeys(config.wallet.payout_addresses, "one of wallet.payout_addresses")
    return {BATCH_CONTRACT: "MultiSendCallOnly"} | payees | contract_names(config)
