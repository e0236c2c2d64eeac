"""What `trimtab trust` and the signer refuse to pay to, on real contracts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.money import transfers
from agent.app.start.trust import pin_all
from agent.config.build import named_contracts
from agent.errors import ConfigError
from agent.localchain import LocalChain
from agent.wiring.signing_rules import signing_rules
from tests.support.agents import agent_config, agent_on, reopened_agent, yes
from tests.support.on_chain.withdrawing import HOME


def test_trust__a_payout_address_is_no_pool(anvil_chain: LocalChain, tmp_path: Path) -> None:
    document = pin_all(agent_config(anvil_chain, tmp_path), [anvil_chain.transport])
    pools = [contract["address"] for contract in document["contracts"] if contract["role"].endswith("%")]
    with pytest.raises(ConfigError, match="is a contract of the config"):
        pin_all(agent_config(anvil_chain, tmp_path, {"wallet.payout_addresses": pools[:1]}), [anvil_chain.transport])


def test_every_contract_of_the_config__is_refused_if_confirmed_before(anvil_chain: LocalChain, tmp_path: Path) -> None:
    addresses = anvil_chain.addresses
    with agent_on(anvil_chain, tmp_path) as agent:
        contracts = sorted(named_contracts(agent.context.config))
        agent.context.store.requests.confirm_payout_address(HOME, 0)
        for contract in contracts:
            agent.context.store.requests.confirm_payout_address(contract, 0)
    feed = agent.context.config.portfolio.assets[0].feed
    assert {addresses.position_manager, addresses.quoter_v2, addresses.v3_factory, feed} <= {*contracts}
    assert agent.context.config.wallet.address not in contracts
    changed = agent_config(anvil_chain, tmp_path, {"wallet.payout_addresses": [HOME, *contracts]})
    with reopened_agent(anvil_chain, changed) as agent:
        assert agent.context.payout_addresses == signing_rules(agent.context).payout_addresses == (HOME,)
        request = transfers.WithdrawalRequest("1", to=addresses.position_manager)
        assert "payout_address" in transfers.withdraw(agent, request, confirm=yes).reason
    for contract in (addresses.position_manager, addresses.quoter_v2, feed):
        unconfirmed = agent_config(anvil_chain, tmp_path, {"wallet.payout_addresses": [contract]})
        with pytest.raises(ConfigError, match=f"{contract} is a contract of the config"):
            pin_all(unconfirmed, [anvil_chain.transport])
