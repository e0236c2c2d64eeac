"""What the file of a Safe's proposal says to an owner who has nothing else: every effect of its call that can be read from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_abi.abi import encode as abi_encode

from agent import app as api
from agent.chain.safe import signing_json
from agent.errors import ConfigError
from agent.model import UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch
from agent.signing.calldata import selector
from agent.units import UINT256_MAX
from tests.support.builders import address

SAFE = address("Safe")
TOKEN = address("token")
STRANGER = address("stranger")
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
        pytest.param(TOKEN, TRANSFER, 0, [f"{TOKEN}: transfer call recipient {STRANGER}, raw 7"], id="transfer"),
        pytest.param(TOKEN, APPROVE, 0, [f"{TOKEN}: approve spender {STRANGER}, raw {UINT256_MAX}"], id="approval"),
        pytest.param(STRANGER, "0x", 5, [f"{STRANGER}: gets 5 wei of native coin"], id="native coin"),
        pytest.param(SAFE, "0x", 0, [f"{SAFE}: empty call of the Safe itself, which changes nothing but its nonce"], id="rejection"),
        pytest.param(STRANGER, "0x", 0, [f"{STRANGER}: call without data, which runs a contract's fallback function"], id="without data"),
        pytest.param(STRANGER, "0x12345678", 0, [f"{STRANGER}: unknown function 0x12345678"], id="unknown"),
        pytest.param(
            STRANGER,
            "0x12345678",
            5,
            [f"{STRANGER}: gets 5 wei of native coin", f"{STRANGER}: unknown function 0x12345678"],
            id="unknown with native coin",
        ),
        pytest.param(
            SAFE,
            SWAP_OWNER,
            0,
            [f"{SAFE}: unknown function {SWAP_OWNER[:10]} of the Safe itself, which can change owners, threshold and modules"],
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
    swap_line = lines_of(tmp_path, STRANGER, "0x" + data.hex())[1]
    assert "recipient the router itself," in swap_line
    transfer = "0xa9059cbb" + f"{int(this, 16):064x}{7:064x}"
    assert lines_of(tmp_path, TOKEN, transfer) == [f"{TOKEN}: transfer call recipient {this}, raw 7"]


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
    assert "a file of the Transaction Builder has no nonce" in refusal.value.remedy


def test_file__says_each_call_of_a_batch(tmp_path: Path) -> None:
    calls = [BatchedCall(to, bytes.fromhex(data[2:])) for to, data in ((TOKEN, APPROVE), (TOKEN, TRANSFER), (SAFE, SWAP_OWNER))]
    wrapper, approval, transfer, owners = lines_of(tmp_path, BATCH_CONTRACT, encode_batch(calls))
    assert wrapper == f"{BATCH_CONTRACT}: delegate call of MultiSendCallOnly, which makes the next 3 calls, all or none"
    assert approval == f"{TOKEN}: approve spender {STRANGER}, raw {UINT256_MAX}"
    assert transfer == f"{TOKEN}: transfer call recipient {STRANGER}, raw 7"
    assert owners.startswith(f"{SAFE}: unknown function")
    assert "of the Safe itself" in owners
