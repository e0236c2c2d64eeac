"""What `trimtab trust` refuses to pay to, on real contracts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.start.trust import pin_all
from agent.errors import ConfigError
from agent.localchain import LocalChain
from tests.support.agents import agent_config


def test_trust__a_payout_address_is_no_pool(anvil_chain: LocalChain, tmp_path: Path) -> None:
    document = pin_all(agent_config(anvil_chain, tmp_path), [anvil_chain.transport])
    pools = [contract["address"] for contract in document["contracts"] if contract["role"].endswith("%")]
    with pytest.raises(ConfigError, match="is a contract of the config"):
        pin_all(agent_config(anvil_chain, tmp_path, {"wallet.payout_addresses": pools[:1]}), [anvil_chain.transport])
