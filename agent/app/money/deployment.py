"""`trimtab deploy`: where the Rebalancer is, and its deployment by the wallet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eth_utils.crypto import keccak

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents.owner import DeploymentDocument
from agent.app.documents.plans import transaction_document
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.rpc import Transport, parse_bytes
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, OperatorNeeded, Refused, Retryable
from agent.execution.approvals import OwnerAction, current_step_input, send_by_command
from agent.model import Intent, has_no_code
from agent.ports import PreparedTransaction
from agent.signing.deployment_rules import CREATE2_DEPLOYER, encode_deployment
from agent.units import decimal_text
from agent.venues.deployment import rebalancer_address, rebalancer_code_hash, rebalancer_init_code

_DEPLOYER_CODE_HASH = "0x2fa86add0aed31f33a762c9d88e807c475bd51d0f52bd0955754b2608f7e4989"
"""keccak256 of the code of the deterministic-deployment-proxy, the same on every chain."""
PRECEDED = "another account deployed it first: nothing was sent"
PRECEDED_AFTER_SENDING = (
    "another account deployed it first, with the same code: nothing is lost but the gas of this"
    " transaction"
)


def rebalancer_deployment(config: Path | str | LoadedConfig) -> DeploymentDocument:
    """Return the deployment, as the operators of the config agree on it. Raises ConfigError if the
    chain has no CREATE2 deployer, OperatorNeeded for other code at the address.
    """
    loaded_config = load_config(config)
    endpoint_pool = wiring.open_endpoint_pool(loaded_config.config, None, wiring.SystemClock())
    return _read_deployment(QuorumProvider(endpoint_pool), loaded_config.config.chain.chain_id)


def deploy_rebalancer(
    agent: Agent,
    *,
    confirm: Callable[[DeploymentDocument], bool],
    progress: Progress = ignore_progress,
) -> DeploymentDocument:
    """Deploy the Rebalancer by the agent's wallet once confirmed, unless it is there, and compare
    the hash of its code. Raises as `rebalancer_deployment`, and Refused by gas limits, kill switch
    and signer like every transaction.
    """
    context = agent.context
    with wiring.open_transactor(context, never_confirm, progress) as transactor:
        transactor.executor.reconcile()
        step = current_step_input(context.readers, context.store)
        deployment_document = _read_deployment(context.transport, context.config.chain.chain_id)
        if deployment_document["deployed"]:
            return deployment_document

        def confirm_cost(prepared_transaction: PreparedTransaction) -> bool:
            deployment_document["most_gas_native"] = decimal_text(
                prepared_transaction.tx.max_gas_cost_wei, 18
            )
            deployment_document["most_data_fee_native"] = decimal_text(
                prepared_transaction.grant.max_data_fee_wei or 0, 18
            )
            return confirm(deployment_document)

        intents: tuple[Intent, ...] = ()
        try:
            outcome, intents = send_by_command(
                context.readers,
                context.store,
                transactor,
                step,
                OwnerAction(
                    "deploy",
                    transactor.composer.deployment_transaction,
                    f"the Rebalancer is at {deployment_document['address']}",
                ),
                confirm_cost,
            )
        except Refused:  # its simulation reverts once the code is there
            if not _read_deployment(context.transport, deployment_document["chain_id"])["deployed"]:
                raise
            outcome = "hold"
        document_after = _read_deployment(context.transport, deployment_document["chain_id"])
        deployment_document["deployed"] = document_after["deployed"]
        if document_after["deployed"] and outcome in ("hold", "failed"):
            outcome = "hold"
            deployment_document["reason"] = PRECEDED_AFTER_SENDING if intents else PRECEDED
        if outcome == "done" and not document_after["deployed"]:
            raise Retryable(
                f"the deployment was mined, but the endpoints show no code at {document_after['address']}",
                "trimtab deploy looks again",
            )
    deployment_document["outcome"] = outcome
    deployment_document["transactions"] = [transaction_document(intent) for intent in intents]
    return deployment_document


def _read_deployment(transport: Transport, chain_id: int) -> DeploymentDocument:
    address = rebalancer_address()
    deployed_hash, deployer_hash = (
        "0x"
        + keccak(parse_bytes(transport.call("eth_getCode", [contract, "latest"]), "code")).hex()
        for contract in (address, CREATE2_DEPLOYER)
    )
    is_deployed = deployed_hash == rebalancer_code_hash()
    if not is_deployed and not has_no_code(deployed_hash):
        raise OperatorNeeded(
            f"the code at {address} has the hash {deployed_hash}, the Rebalancer {rebalancer_code_hash()}",
            "do not use this address; check the endpoints of [[chain.rpc]]",
        )
    if not is_deployed and deployer_hash != _DEPLOYER_CODE_HASH:
        raise ConfigError(
            f"chain.chain_id {chain_id}: there is no CREATE2 deployer at {CREATE2_DEPLOYER}",
            "deploy it as its authors describe (deterministic-deployment-proxy), or use"
            " swap_router_02",
        )
    return {
        "chain_id": chain_id,
        "address": address,
        "deployed": is_deployed,
        "to": CREATE2_DEPLOYER,
        "value_wei": "0",
        "data": encode_deployment(rebalancer_init_code()),
        "most_gas_native": None,
        "most_data_fee_native": None,
        "outcome": "hold" if is_deployed else "planned",
        "reason": "",
        "transactions": [],
    }
