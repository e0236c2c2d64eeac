"""A real Safe on an embedded chain, with owners who sign what they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from web3.contract import Contract

from agent.artifacts import npm_artifact
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts
from agent.units import NATIVE

SAFE = "@safe-global/safe-contracts/build/artifacts/contracts/Safe.sol/Safe.json"
FACTORY = "@safe-global/safe-contracts/build/artifacts/contracts/proxies/SafeProxyFactory.sol/SafeProxyFactory.json"


@dataclass(frozen=True)
class SafeWallet:
    """A Safe of some of the test accounts; `threshold` of them must sign."""

    chain: LocalChain
    contract: Contract
    owners: tuple[Any, ...]
    threshold: int

    @property
    def address(self) -> str:
        return str(self.contract.address)

    def signatures(self, typed_data: Mapping[str, Any]) -> bytes:
        """What owners sign when their wallets show them this typed data, in the order that the Safe wants."""
        signing = sorted(self.owners, key=lambda owner: int(owner.address, 16))[: self.threshold]
        return b"".join(bytes(Account.sign_typed_data(owner.key, full_message=dict(typed_data)).signature) for owner in signing)

    def execute(self, document: Mapping[str, Any]) -> str:
        """Somebody who is no owner carries out what the owners signed; the hash of his transaction."""
        call, executor = document["safe_tx"], dev_accounts()[9].address
        fields = [call["to"], int(call["value"]), call["data"], call["operation"], 0, 0, 0, call["gasToken"], call["refundReceiver"]]
        signed = self.contract.functions.execTransaction(*fields, self.signatures(document["typed_data"]))
        return self.chain.send(signed, executor)

    def nonce(self) -> int:
        return int(self.contract.functions.nonce().call())


def deploy_safe(chain: LocalChain, owners: Sequence[int] = (5, 6, 7), threshold: int = 2) -> SafeWallet:
    """A proxy of the real singleton, owned by these test accounts."""
    accounts = tuple(dev_accounts()[index] for index in owners)
    singleton = chain.contract(chain.deploy(npm_artifact(SAFE)), npm_artifact(SAFE))
    factory = chain.contract(chain.deploy(npm_artifact(FACTORY)), npm_artifact(FACTORY))
    setup = singleton.encode_abi("setup", [[one.address for one in accounts], threshold, NATIVE, b"", NATIVE, NATIVE, 0, NATIVE])
    receipt = chain.w3.eth.get_transaction_receipt(chain.send(factory.functions.createProxyWithNonce(singleton.address, setup, 7)))
    made = factory.events.ProxyCreation().process_receipt(receipt)[0]["args"]["proxy"]
    return SafeWallet(chain, chain.contract(made, npm_artifact(SAFE)), accounts, threshold)
