"""The contracts that a config names, shown to the owner and pinned before the first trade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from agent import wiring
from agent.app import config_versions
from agent.app.start.venue import list_markets, pin_markets, pin_state
from agent.chain.rpc import Transport
from agent.config.build import contract_names, named_contracts
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.errors import ConfigError, Refused
from agent.model import NO_CODE_HASH, Snapshot, Verdict, has_no_code

if TYPE_CHECKING:
    from agent.app.documents.owner import ContractDocument, TrustDocument


class Implementation(NamedTuple):
    """Implementation of a proxy with its code hash."""

    proxy: str
    address: str
    code_hash: str


def trust(
    config: ConfigSource,
    confirm: Callable[[TrustDocument], bool],
    transports: Sequence[Transport] | None = None,
    *,
    is_unreviewed: bool = False,
) -> TrustDocument:
    """Return every contract of the config, each discovered pool with its code hash, and the market
    numbers of an off-chain futures venue, and pin them if `confirm` returns True; it is not called
    if all are pinned already.

    With `is_unreviewed` no user reviews them; Refused is then raised on a live chain if the config
    was edited by hand. Raises Refused if an address holds no code, Retryable if the venue does not
    answer.
    """
    loaded_config = load_config(config)
    with wiring.open_context(loaded_config, transports, includes_untrusted_pools=True) as context:
        if is_unreviewed:
            config_versions.refuse_live_changes(loaded_config, context.store.configs)
        snapshot = context.position_reader.snapshot()
        contracts, implementations, no_code_verdicts = list_contracts(context, snapshot)
        payout_documents = _payout_address_documents(context, contracts)
        require_code([verdict for _, verdict in no_code_verdicts])
        market_documents, market_numbers = list_markets(context)
        is_all_pinned = all(
            document["state"] == "unchanged"
            for document in (*contracts, *payout_documents, *market_documents)
        )
        trust_document: TrustDocument = {
            "block": snapshot.head.number,
            "pinned": is_all_pinned,
            "contracts": [*contracts, *payout_documents],
        }
        if market_documents:
            trust_document["markets"] = market_documents
        if not is_all_pinned and confirm(trust_document):
            for payout_document in payout_documents:
                context.store.requests.confirm_payout_address(
                    payout_document["address"], context.clock.now_s()
                )
            pin_markets(context, market_numbers)
            pin_contracts(context, contracts, implementations)
            trust_document["pinned"] = True
        return trust_document


def list_contracts(
    context: wiring.AgentContext, snapshot: Snapshot
) -> tuple[list[ContractDocument], list[Implementation], list[tuple[str, Verdict]]]:
    """Return a row for every contract of the config, each pool and each proxy implementation, the
    implementations, and each address without code with its verdict.
    """
    code_hashes = {code_entry.address: code_entry.hash for code_entry in snapshot.code_hashes}
    name_by_address = _contract_names(context)
    pinned_hashes = context.store.trust.pins()
    contracts: list[ContractDocument] = []
    no_code_verdicts = []
    for address in dict.fromkeys(
        (*context.execution.pinned, *(pool.contract for pool in context.pools))
    ):
        code_hash = code_hashes.get(address, NO_CODE_HASH)
        if has_no_code(code_hash):
            no_code_text = f"{name_by_address[address]} at {address}: no code"
            no_code_verdicts.append((address, Verdict("code", no_code_text, "a contract", False)))
        state = pin_state(pinned_hashes.get(address), code_hash)
        contracts.append(
            {
                "role": name_by_address[address],
                "address": address,
                "code_hash": code_hash,
                "state": state,
            }
        )
    pinned_implementations = context.store.trust.implementations()
    implementations: list[Implementation] = []
    for implementation in snapshot.implementations:
        code_hash = code_hashes.get(implementation.address, NO_CODE_HASH)
        contract_name = (
            f"implementation of {name_by_address[implementation.proxy].removeprefix('token ')}"
        )
        if has_no_code(code_hash):
            no_code_text = (
                f"{contract_name} at {implementation.address}: no code, or it cannot be read"
            )
            no_code_verdict = Verdict("code", no_code_text, "a contract", False)
            no_code_verdicts.append((implementation.address, no_code_verdict))
        state = pin_state(
            pinned_implementations.get(implementation.proxy), (implementation.address, code_hash)
        )
        contracts.append(
            {
                "role": contract_name,
                "address": implementation.address,
                "code_hash": code_hash,
                "state": state,
            }
        )
        implementations.append(
            Implementation(implementation.proxy, implementation.address, code_hash)
        )
    return contracts, implementations, no_code_verdicts


def require_code(no_code_verdicts: Sequence[Verdict]) -> None:
    """Raise Refused if an address holds no code."""
    if no_code_verdicts:
        raise Refused(
            "some addresses hold no code: "
            + "; ".join(verdict.measured_text for verdict in no_code_verdicts),
            no_code_verdicts,
            "correct the config",
        )


def pin_contracts(
    context: wiring.AgentContext,
    contracts: Sequence[ContractDocument],
    implementations: Sequence[Implementation],
) -> None:
    """Pin the contracts of the rows and the implementations; the owner has confirmed them."""
    context.store.trust.pin(
        {contract["address"]: contract["code_hash"] for contract in contracts},
        context.clock.now_s(),
        implementations,
    )


def _payout_address_documents(
    context: wiring.AgentContext, contracts: Sequence[ContractDocument]
) -> list[ContractDocument]:
    """Return a row for each payout address. Raises ConfigError for the wallet itself, and for a
    contract that the config names, pools and implementations included.
    """
    wallet = context.config.wallet
    confirmed_addresses = context.store.requests.payout_addresses()
    refusal_by_address = {wallet.address: "the wallet itself"} | dict.fromkeys(
        (*named_contracts(context.config), *(contract["address"] for contract in contracts)),
        "a contract of the config",
    )
    for address in wallet.payout_addresses:
        if address in refusal_by_address:
            raise ConfigError(
                f"wallet.payout_addresses: {address} is {refusal_by_address[address]}",
                "give the address of another account of yours",
            )
    return [
        {
            "role": "payout address",
            "address": address,
            "code_hash": NO_CODE_HASH,
            "state": "unchanged" if address in confirmed_addresses else "new",
        }
        for address in wallet.payout_addresses
    ]


def pin_all(config: LoadedConfig, transports: Sequence[Transport] | None = None) -> TrustDocument:
    """Pin everything without review, for a chain created by this process."""
    return trust(config, lambda _: True, transports)


def _contract_names(context: wiring.AgentContext) -> dict[str, str]:
    name_by_address = contract_names(context.config, context.store.positions.changes())
    name_by_address |= {
        token.address: f"token {token.label}"
        for token in (*(asset.token for asset in context.portfolio.assets), *context.portfolio.hubs)
    }
    for pool in context.pools:
        pair_text = "/".join(
            context.portfolio.token(address).label for address in (pool.token0, pool.token1)
        )
        name_by_address[pool.address] = (
            f"{pool.venue.removeprefix('uniswap_')} {pair_text} {pool.fee_pips / 10_000:g} %"
        )
    return name_by_address
