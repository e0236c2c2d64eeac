"""A Safe 1.4.1 on a local chain, owned by published test accounts."""

from __future__ import annotations

from collections.abc import Sequence

from web3.logs import DISCARD

from agent.artifacts import npm_artifact
from agent.localchain.chain import LocalChain
from agent.signing.batches import BATCH_CONTRACT
from agent.units import NATIVE

_ARTIFACTS = "@safe-global/safe-contracts/build/artifacts/contracts/"
SAFE_ARTIFACT = f"{_ARTIFACTS}Safe.sol/Safe.json"
PROXY_FACTORY_ARTIFACT = f"{_ARTIFACTS}proxies/SafeProxyFactory.sol/SafeProxyFactory.json"
HANDLER_ARTIFACT = (
    f"{_ARTIFACTS}handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json"
)
BATCH_ARTIFACT = f"{_ARTIFACTS}libraries/MultiSendCallOnly.sol/MultiSendCallOnly.json"
OWNER_INDEXES = (5, 6, 7)
"""Test accounts that own the Safe of a served chain."""
THRESHOLD = 2


def deploy_safe(
    chain: LocalChain,
    owner_indexes: Sequence[int] = OWNER_INDEXES,
    threshold: int = THRESHOLD,
    *,
    makes_batches: bool,
) -> str:
    """Deploy a proxy of the real Safe, owned by these test accounts, and return its address. With
    `makes_batches` it has a fallback handler, and MultiSendCallOnly is at its address.
    """
    artifact = npm_artifact(SAFE_ARTIFACT)
    factory_artifact = npm_artifact(PROXY_FACTORY_ARTIFACT)
    singleton = chain.contract(chain.deploy(artifact), artifact)
    factory = chain.contract(chain.deploy(factory_artifact), factory_artifact)
    owners = [chain.accounts[index].address for index in owner_indexes]
    handler = NATIVE
    if makes_batches:
        handler = chain.deploy(npm_artifact(HANDLER_ARTIFACT))
        batch_code = npm_artifact(BATCH_ARTIFACT).runtime_code
        chain.node.ask([("anvil_setCode", [BATCH_CONTRACT, batch_code])])
    setup_arguments = (owners, threshold, NATIVE, b"", handler, NATIVE, 0, NATIVE)
    setup_data = singleton.encode_abi("setup", setup_arguments)
    creation_hash = chain.send(
        factory.functions.createProxyWithNonce(singleton.address, setup_data, 0)
    )
    receipt = chain.w3.eth.get_transaction_receipt(creation_hash)
    # the receipt has an event of the Safe, too, of which web3 warns by default
    events = factory.events.ProxyCreation().process_receipt(receipt, errors=DISCARD)
    return str(events[0]["args"]["proxy"])


def open_funded_safe(chain: LocalChain) -> str:
    """Deploy the Safe of a served chain with balances as the wallet's; return its address."""
    safe = deploy_safe(chain, makes_batches=True)
    for symbol, balance_raw in chain.balances().items():
        chain.set_balance(symbol, balance_raw, owner=safe)
    return safe
