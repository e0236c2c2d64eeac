"""What the file of a Safe's proposal says to an owner who has nothing else: every effect of its call that can be read from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode

from agent import app as api
from agent.app.money.call_words import CallWords
from agent.app.money.transaction_builder import checksum
from agent.chain.safe import signing_json
from agent.errors import ConfigError
from agent.model import PoolMaker, SwapStyle, UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch
from agent.signing.calldata import (
    SWAP_EXACT_TOKENS,
    Approve,
    ExactInputSingle,
    FundsLocation,
    ProgramLeg,
    Pull,
    RebalanceCall,
    SwapExactTokens,
    SweepToken,
    TransferCall,
    UnwrapWeth9,
    WatchedBalance,
    WrapEth,
    selector,
)
from agent.signing.swap_rules import ROUTER_ITSELF
from agent.units import UINT256_MAX
from tests.support import builders
from tests.support.builders import address
from tests.support.text import mentions

SAFE = address("Safe")
TOKEN = address("token")
OTHER = address("other")
STRANGER = address("stranger")
UNKNOWN = address("unknown")
TRANSFER = "0xa9059cbb" + f"{int(STRANGER, 16):064x}{7:064x}"
APPROVE = "0x095ea7b3" + f"{int(STRANGER, 16):064x}{UINT256_MAX:064x}"
SWAP_OWNER = "0x" + selector("swapOwner(address,address,address)").hex() + "00" * 96


def lines_of(folder: Path, to: str, data: str, value_wei: int = 0) -> list[str]:
    tx = UnsignedTx(1, 3, to, value_wei, data, 0, None, None, 0)
    path = folder / "proposal.json"
    path.write_text(json.dumps({"chain_id": 1, **signing_json(SAFE, tx)}))
    document = api.read_proposal_file(path)
    assert document["value_wei"] == str(value_wei)
    return document["calls"]


@pytest.mark.parametrize(
    ("to", "data", "value_wei", "lines"),
    [
        pytest.param(TOKEN, TRANSFER, 0, [f"pays 7 base units of the token {TOKEN} (unknown) to {STRANGER} (unknown)"], id="transfer"),
        pytest.param(TOKEN, APPROVE, 0, [f"lets {STRANGER} (unknown) spend any amount of the token {TOKEN} (unknown)"], id="approval"),
        pytest.param(STRANGER, "0x", 5, [f"pays 0.000000000000000005 of native coin to {STRANGER} (unknown)"], id="native coin"),
        pytest.param(SAFE, "0x", 0, ["an empty call of this Safe to itself, which changes nothing but its nonce"], id="rejection"),
        pytest.param(
            STRANGER,
            "0x",
            0,
            [f"a call of {STRANGER} (unknown) without data, which runs a contract's fallback function"],
            id="without data",
        ),
        pytest.param(STRANGER, "0x12345678", 0, [f"calls an unknown function 0x12345678 of {STRANGER} (unknown)"], id="unknown"),
        pytest.param(
            STRANGER,
            "0x12345678",
            5,
            [
                f"pays 0.000000000000000005 of native coin to {STRANGER} (unknown)",
                f"calls an unknown function 0x12345678 of {STRANGER} (unknown)",
            ],
            id="unknown with native coin",
        ),
        pytest.param(
            SAFE,
            SWAP_OWNER,
            0,
            [f"calls an unknown function {SWAP_OWNER[:10]} of this Safe ({SAFE}): it can change owners, threshold and modules"],
            id="owners of the Safe",
        ),
    ],
)
def test_file__says_each_effect_of_its_call(tmp_path: Path, to: str, data: str, value_wei: int, lines: list[str]) -> None:
    assert lines_of(tmp_path, to, data, value_wei) == lines


def test_file__names_the_router_as_a_recipient_of_its_swaps_alone(tmp_path: Path) -> None:
    """Constants.ADDRESS_THIS of SwapRouter02; a token pays it like any other address."""
    this = "0x0000000000000000000000000000000000000002"
    swap = selector("exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))")
    swap += abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [(TOKEN, STRANGER, 500, this, 7, 6, 0)])
    data = selector("multicall(uint256,bytes[])") + abi_encode(["uint256", "bytes[]"], [9, [swap]])
    _, swap_line, warning = lines_of(tmp_path, STRANGER, "0x" + data.hex())
    assert swap_line.endswith(", kept in the router")
    assert warning == f"WARNING: {STRANGER} (unknown) stays in the router, where anyone can take it"
    transfer = "0xa9059cbb" + f"{int(this, 16):064x}{7:064x}"
    assert lines_of(tmp_path, TOKEN, transfer) == [f"pays 7 base units of the token {TOKEN} (unknown) to {this} (unknown)"]


@pytest.mark.parametrize("path", [[], [TOKEN]], ids=["no token", "one token"])
def test_file__of_a_swap_without_two_tokens_is_an_unknown_call(tmp_path: Path, path: list[str]) -> None:
    data = SWAP_EXACT_TOKENS + abi_encode(["uint256", "uint256", "address[]", "address"], [7, 6, path, SAFE])
    assert lines_of(tmp_path, STRANGER, "0x" + data.hex()) == [
        f"calls an unknown function {'0x' + SWAP_EXACT_TOKENS.hex()} of {STRANGER} (unknown)"
    ]


def test_file__of_a_router_s_call_without_parts_names_the_router(tmp_path: Path) -> None:
    data = selector("multicall(uint256,bytes[])") + abi_encode(["uint256", "bytes[]"], [9, []])
    (line,) = lines_of(tmp_path, STRANGER, "0x" + data.hex())
    assert line.startswith(f"calls {STRANGER} (unknown), not after ")


def write_typed_data(folder: Path, **message: object) -> Path:
    """What `proposal sign --export` prints, with changes of its message."""
    typed_data = signing_json(SAFE, UnsignedTx(1, 3, TOKEN, 0, TRANSFER, 0, None, None, 0))["typed_data"]
    path = folder / "typed.json"
    path.write_text(json.dumps({**typed_data, "message": {**typed_data["message"], **message}}))
    return path


def test_typed_data__say_what_the_file_of_the_proposal_says(tmp_path: Path) -> None:
    document = api.read_proposal_file(write_typed_data(tmp_path))
    assert document["calls"] == lines_of(tmp_path, TOKEN, TRANSFER)
    assert document == api.read_proposal_file(tmp_path / "proposal.json")
    assert (document["safe"], document["nonce"]) == (SAFE, 3)


@pytest.mark.parametrize("change", [{"operation": 1}, {"gasPrice": 1}, {"refundReceiver": STRANGER}, {"safeTxGas": 7}], ids=str)
def test_typed_data__of_another_kind_of_call_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="are not those of its call"):
        api.read_proposal_file(write_typed_data(tmp_path, **change))


def test_file_of_the_transaction_builder__is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.write_text(json.dumps({"version": "1.0", "chainId": "1", "transactions": []}))
    with pytest.raises(ConfigError) as refusal:
        api.read_proposal_file(path)
    assert "another file of the Transaction Builder has no nonce" in refusal.value.remedy


def test_file__says_each_call_of_a_batch(tmp_path: Path) -> None:
    calls = [BatchedCall(to, bytes.fromhex(data[2:])) for to, data in ((TOKEN, APPROVE), (TOKEN, TRANSFER), (SAFE, SWAP_OWNER))]
    wrapper, approval, transfer, owners = lines_of(tmp_path, BATCH_CONTRACT, encode_batch(calls))
    assert mentions(wrapper, "3 calls, all or none", BATCH_CONTRACT)
    assert approval.startswith(f"lets {STRANGER} (unknown) spend any amount")
    assert transfer.startswith("pays 7 base units")
    assert owners.startswith("calls an unknown function")
    assert f"this Safe ({SAFE})" in owners


WORDS = CallWords(
    SAFE, TOKEN, {STRANGER: "uniswap_v3 router"}, {TOKEN: builders.token("WETH", 18, TOKEN), OTHER: builders.token("USDC", 6, OTHER)}
)
LENT_SWAP = ExactInputSingle(TOKEN, OTHER, 500, ROUTER_ITSELF, 10**18, 2_000_000_000, 0)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        pytest.param(Approve(STRANGER, 15 * 10**17), f"lets {STRANGER} (uniswap_v3 router) spend 1.5 WETH", id="approval"),
        pytest.param(Approve(SAFE, UINT256_MAX), f"lets this Safe ({SAFE}) spend any amount of WETH", id="unlimited approval"),
        pytest.param(TransferCall(TOKEN, 1), f"pays 0.000000000000000001 WETH to {TOKEN} (token WETH)", id="payment to a token"),
        pytest.param(LENT_SWAP, "sells 1 WETH for at least 2000 USDC, kept in the router", id="swap"),
        pytest.param(
            replace(LENT_SWAP, amount_in_raw=0, recipient=UNKNOWN),
            f"sells all that the router has of {TOKEN} (token WETH) for at least 2000 USDC, paid to {UNKNOWN} (unknown)",
            id="swap paid to a stranger",
        ),
        pytest.param(
            replace(LENT_SWAP, token_out=UNKNOWN, min_out_raw=7),
            f"sells 1 WETH for at least 7 base units of the token {UNKNOWN} (unknown), kept in the router",
            id="unknown token",
        ),
        pytest.param(SweepToken(OTHER, 5_000_000, SAFE), f"pays at least 5 USDC to this Safe ({SAFE})", id="sweep"),
    ],
)
def test_words__name_coins_and_addresses_or_say_unknown(act: object, text: str) -> None:
    assert [*WORDS._act_lines([act], TOKEN)] == [text]


SOLD_ON = ExactInputSingle(OTHER, TOKEN, 500, SAFE, 0, 1, 0)
PAIR_SWAP = SwapExactTokens(10**18, 5, (TOKEN, UNKNOWN, OTHER), STRANGER)


@pytest.mark.parametrize(
    ("acts", "left"),
    [
        pytest.param([LENT_SWAP], [OTHER], id="a swap alone"),
        pytest.param([LENT_SWAP, SweepToken(OTHER, 1, SAFE)], [], id="swept to the Safe"),
        pytest.param([LENT_SWAP, SweepToken(TOKEN, 1, SAFE)], [OTHER], id="another token swept"),
        pytest.param([LENT_SWAP, SweepToken(OTHER, 1, STRANGER)], [OTHER], id="swept to the router itself"),
        pytest.param([LENT_SWAP, SOLD_ON], [], id="sold on, paid to the Safe"),
        pytest.param([LENT_SWAP, replace(SOLD_ON, amount_in_raw=1)], [OTHER], id="another amount sold"),
        pytest.param([PAIR_SWAP], [OTHER], id="paid to the router's own address"),
        pytest.param([PAIR_SWAP, SweepToken(OTHER, 1, SAFE)], [], id="a pair's swap swept"),
        pytest.param([Pull(OTHER, 5)], [OTHER], id="pulled"),
        pytest.param([WrapEth(5)], [TOKEN], id="wrapped"),
        pytest.param([WrapEth(5), UnwrapWeth9(5, SAFE)], [], id="wrapped and unwrapped"),
        pytest.param([SOLD_ON], [], id="paid to the Safe"),
    ],
)
def test_words__warn_of_what_stays_in_the_router(acts: list[Any], left: list[str]) -> None:
    names = " and ".join(map(WORDS.name, left))
    expected_lines = [f"WARNING: {names} stays in the router, where anyone can take it"] if left else []
    assert [*WORDS._left_behind(acts, STRANGER)] == expected_lines
    for line in WORDS._act_lines(acts, STRANGER):
        assert ("kept in the router" in line, "passes it on below" in line) in ((False, False), (bool(left), not left)), line


def program(maker: PoolMaker, *watched_balances: WatchedBalance) -> RebalanceCall:
    """Sells 10 WETH for at least 25,000 USDC in a pool of that maker."""
    leg = ProgramLeg(
        maker, FundsLocation.WALLET, FundsLocation.WALLET, TOKEN, OTHER, None, None, 500, 10 * 10**18, 25_000 * 10**6
    )  # fmt: skip
    watched_tokens = {watched.token for watched in watched_balances}
    return RebalanceCall(9, 0, watched_balances, tuple(token for token in (TOKEN, OTHER) if token not in watched_tokens), (leg,))


FACTORY = "0x7777777777777777777777777777777777777777"


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        pytest.param(
            program(PoolMaker(SwapStyle.V3, FACTORY), WatchedBalance(TOKEN, 1, -(10**19)), WatchedBalance(OTHER, 1, 25_000 * 10**6)),
            ["  this Safe spends at most 10 WETH", "  this Safe receives at least 25000 USDC"],
            id="both watched",
        ),
        pytest.param(
            program(PoolMaker(SwapStyle.V3, FACTORY), WatchedBalance(TOKEN, 1, -(10**19))),
            [
                "  this Safe spends at most 10 WETH",
                f"WARNING: nothing but the pools' word bounds what this Safe spends or receives of {OTHER} (token USDC)",
            ],
            id="what it receives is not watched",
        ),
    ],
)
def test_words__say_whose_pools_a_program_uses_and_its_bounds(call: RebalanceCall, lines: list[str]) -> None:
    assert WORDS._leg(call.legs[0]) == f"sells 10 WETH for at least 25000 USDC, in a pool of {FACTORY} (unknown)"
    assert [*WORDS._bounds(call)] == lines


def write_builder_file(
    folder: Path, calls: list[BatchedCall], chain_id: str = "1", values: tuple[str, ...] = ("0", "0"), **changes: object
) -> Path:
    """What `proposal export` prints, with changes of its description."""
    tx = UnsignedTx(1, 3, calls[0].to, 0, calls[0].data_hex, 0, None, None, 0)
    if len(calls) > 1:
        tx = replace(tx, to=BATCH_CONTRACT, data=encode_batch(calls))
    fields = {"nonce": 3, "hash": signing_json(SAFE, tx)["safe_tx_hash"]} | changes
    builder_json = {
        "version": "1.0",
        "chainId": chain_id,
        "meta": {
            "name": "trimtab",
            "description": f"swap. Set nonce {fields['nonce']}; the hash is then {fields['hash']}.",
            "createdFromSafeAddress": SAFE,
        },
        "transactions": [{"to": call.to, "value": value, "data": call.data_hex} for call, value in zip(calls, values, strict=False)],
    }
    builder_json["meta"]["checksum"] = checksum(builder_json)  # type: ignore[index]
    path = folder / "batch.json"
    path.write_text(json.dumps(builder_json))
    return path


BATCH_CALLS = [BatchedCall(TOKEN, bytes.fromhex(data[2:])) for data in (APPROVE, TRANSFER)]


@pytest.mark.parametrize("call_count", [1, 2])
def test_builder_file__says_its_calls_and_its_hash(tmp_path: Path, call_count: int) -> None:
    calls = BATCH_CALLS[:call_count]
    document = api.read_proposal_file(write_builder_file(tmp_path, calls))
    tx_to, tx_data = (BATCH_CONTRACT, encode_batch(calls)) if call_count > 1 else (TOKEN, APPROVE)
    assert document["calls"] == lines_of(tmp_path, tx_to, tx_data)
    assert document["nonce"] == 3
    assert mentions(document["calls"][-1], "of the token")


@pytest.mark.parametrize("change", [{"nonce": 4}, {"hash": "0x" + "ab" * 32}], ids=["other nonce", "other hash"])
def test_builder_file__of_another_hash_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="are not those of its call"):
        api.read_proposal_file(write_builder_file(tmp_path, BATCH_CALLS, **change))


def test_builder_file__changed_after_its_checksum_is_refused(tmp_path: Path) -> None:
    path = write_builder_file(tmp_path, BATCH_CALLS)
    path.write_text(path.read_text().replace('"value": "0"', '"value": "1"', 1))
    with pytest.raises(ConfigError, match="its checksum is not that of its content"):
        api.read_proposal_file(path)


@pytest.mark.parametrize("number", ["-1", str(UINT256_MAX + 1), "1_0", "\u0661", 1.5, True])
@pytest.mark.parametrize("field", ["chain_id", "nonce", "value"])
def test_file__with_what_is_no_uint256_is_refused(tmp_path: Path, field: str, number: object) -> None:
    file_json = {"chain_id": 1, **signing_json(SAFE, UnsignedTx(1, 3, TOKEN, 0, TRANSFER, 0, None, None, 0))}
    (file_json if field == "chain_id" else file_json["safe_tx"])[field] = number
    path = tmp_path / "proposal.json"
    path.write_text(json.dumps(file_json))
    with pytest.raises(ConfigError, match="not the file of a Safe's proposal"):
        api.read_proposal_file(path)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"chain_id": "-1"}, id="chain id"),
        pytest.param({"values": ("-1", "0")}, id="negative value"),
        pytest.param({"values": ("-5", "5")}, id="values that cancel out"),
        pytest.param({"values": ("0", "5")}, id="value in a batch"),
    ],
)
def test_builder_file__with_values_no_call_has_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not the file of a Safe's proposal"):
        api.read_proposal_file(write_builder_file(tmp_path, BATCH_CALLS, **changes))
