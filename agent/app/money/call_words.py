"""A call of a Safe in words, with coins, symbols and names where the config beside it knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config.build import contract_names
from agent.config.schema import Config
from agent.model import UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, is_batch, plain_calls
from agent.signing.calldata import (
    Approve,
    ExactInputSingle,
    Multicall,
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
from agent.units import UINT256_MAX, Token, decimal_text, format_time

WEI_DECIMALS = 18


@dataclass(frozen=True, slots=True)
class CallWords:
    """Names of addresses and tokens by address; what they lack is said to be unknown."""

    safe: str
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
        parts: tuple[Any, ...] = ()
        match decoded_call:
            case Multicall():
                parts = decoded_call.calls
            case RebalanceCall():
                parts = decoded_call.legs
            case _:
                yield self._act(decoded_call, call.to)
        if parts:
            yield f"calls {to_text}, not after {format_time(decoded_call.deadline_s)}:"
        for part in parts:
            yield f"  {self._act(part, call.to)}"

    def _act(self, act: Any, called: str) -> str:
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
            case SwapExactTokens():
                return self._swap(act, act.path[0], act.path[-1], act.amount_in_raw)
            case ExactInputSingle():
                return self._swap(act, act.token_in, act.token_out, act.amount_in_raw)
        return self._swap(act, act.token_in, act.token_out, act.amount_raw)  # leg of the Rebalancer

    def _swap(self, swap: Any, token_in: str, token_out: str, amount_in_raw: int) -> str:
        sold_text = self.amount(amount_in_raw, token_in)
        if not amount_in_raw:
            sold_text = f"all that the router has of {self.name(token_in)}"
        recipient = getattr(swap, "recipient", ROUTER_ITSELF)  # legs of the Rebalancer have none
        paid_text = "" if recipient == ROUTER_ITSELF else f", paid to {self.name(recipient)}"
        return (
            f"sells {sold_text} for at least {self.amount(swap.min_out_raw, token_out)}{paid_text}"
        )


def config_names(config: Config) -> dict[str, str]:
    """Return the names of the addresses that a config knows, besides tokens."""
    payees = dict.fromkeys(config.wallet.payout_addresses, "one of wallet.payout_addresses")
    return {BATCH_CONTRACT: "MultiSendCallOnly"} | payees | contract_names(config)
