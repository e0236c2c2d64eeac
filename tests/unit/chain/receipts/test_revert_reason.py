"""Tests of agent/chain/receipts.py: how revert data reads, whatever a contract puts into it."""

from __future__ import annotations

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.receipts import REVERT_MESSAGES, revert_reason
from agent.chain.rpc import RpcFault
from agent.signing.calldata import selector

PANIC = "0x" + selector("Panic(uint256)").hex()
ERROR = selector("Error(string)")
INSUFFICIENT_BALANCE = "0x" + selector("ERC20InsufficientBalance(address,uint256,uint256)").hex() + "00" * 96


def error_data(text: str) -> str:
    return "0x" + (ERROR + abi_encode(["string"], [text])).hex()


def fault(data: str | None = None, message: str = "execution reverted") -> RpcFault:
    return RpcFault(3, message) if data is None else RpcFault(3, message, data)


@pytest.mark.parametrize(
    ("rpc_fault", "words"),
    [
        pytest.param(
            fault(error_data("STF"), "execution reverted: STF"), "balance or allowance is too small, or the token forbids it (STF)",
            id="a code",
        ),
        pytest.param(
            fault(message="execution reverted: Too little received"), "its fee rose since the snapshot (Too little received)",
            id="a code in the message alone",
        ),
        pytest.param(
            RpcFault(-32000, "VM Exception while processing transaction: revert Transaction too old"), "the deadline has passed",
            id="a message of another node",
        ),
        pytest.param(fault(PANIC + f"{0x11:064x}"), "arithmetic overflow (Panic 0x11)", id="a known panic"),
        pytest.param(fault(PANIC + f"{0x77:064x}"), "panic (Panic 0x77)", id="an unknown panic"),
        pytest.param(fault(PANIC + "11"), "reverted with custom error 0x4e487b71", id="a panic cut short"),
        pytest.param(
            fault("0x" + selector("NoSuchPool(uint256)").hex() + "01"), "swap ?: the venue's factory", id="our error cut short"
        ),
        pytest.param(
            fault(INSUFFICIENT_BALANCE), "the balance of a token is too small (ERC20InsufficientBalance)", id="a token's error"
        ),
        pytest.param(fault("0xdeadbeef00"), "reverted with custom error 0xdeadbeef", id="an unknown error"),
        pytest.param(fault("0xde"), "data that cannot be decoded", id="one byte"),
        pytest.param(fault("0x" + ERROR.hex() + "ff" * 40), "a reason that cannot be decoded", id="no text"),
        pytest.param(fault("0x"), "reverted without a reason", id="empty data"),
        pytest.param(fault(), "reverted without a reason", id="no data"),
        pytest.param(fault(error_data("Pausable: paused")), "Pausable: paused", id="a token's words"),
    ],
)  # fmt: skip
def test_revert_data_reads_as_words(rpc_fault: RpcFault, words: str) -> None:
    assert words in revert_reason(rpc_fault)


def test_tokens_own_words_are_cleaned_and_cut() -> None:
    reason = revert_reason(fault(error_data("\x1b[31m<script>=cmd|" + "A" * 1000)))

    assert not {"\x1b", "<", "|"} & set(reason)
    assert len(reason) <= 120


@pytest.mark.parametrize("head", [b"", ERROR, selector("Panic(uint256)")], ids=["no selector", "an error", "a panic"])
@given(data=st.binary(max_size=200))
def test_no_revert_data_makes_the_reader_fail(head: bytes, data: bytes) -> None:
    assert revert_reason(fault("0x" + (head + data).hex()))


@pytest.mark.parametrize(("code", "reason"), REVERT_MESSAGES.items())
def test_code_of_the_table_has_words(code: str, reason: str) -> None:
    assert reason not in ("", code)
