"""The checksum of files of the Transaction Builder, by a file that its website exported (version 1.18.2)."""

from __future__ import annotations

from typing import Any

from agent.app.money.transaction_builder import checksum

EXPORTED: dict[str, Any] = {
    "version": "1.0",
    "chainId": "1",
    "createdAt": 1761326849944,
    "meta": {
        "name": "Transactions Batch",
        "description": "",
        "txBuilderVersion": "1.18.2",
        "createdFromSafeAddress": "0xA77DE01e157f9f57C7c4A326eeE9C4874D0598b6",
        "createdFromOwnerAddress": "",
    },
    "transactions": [
        {
            "to": "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
            "value": "0",
            "data": None,
            "contractMethod": {
                "inputs": [
                    {"internalType": "address", "name": "spender", "type": "address"},
                    {"internalType": "uint256", "name": "value", "type": "uint256"},
                ],
                "name": "approve",
                "payable": False,
            },
            "contractInputsValues": {"spender": "0x474e5Ded6b5D078163BFB8F6dBa355C3aA5478C8", "value": "100000000000"},
        }
    ],
}
CHECKSUM = "0x8b5032f716845c8b08bab3d63dbd9ba92e056f3557793cd041e59b84e16aa989"


def test_checksum__is_that_of_the_website() -> None:
    assert checksum(EXPORTED) == CHECKSUM


def test_checksum__ignores_the_name_alone() -> None:
    renamed = {**EXPORTED, "meta": {**EXPORTED["meta"], "name": "other"}}
    described = {**EXPORTED, "meta": {**EXPORTED["meta"], "description": "other"}}
    assert checksum(renamed) == CHECKSUM != checksum(described)
