"""Owners of a Safe who sign what is proposed."""

from __future__ import annotations

from typing import Any

from eth_account import Account

from agent import app as api
from agent.app.agent import Agent
from agent.localchain.world import dev_accounts as accounts
from tests.support.agents import yes

FIRST = {"test_account": 5}
SECOND = {"test_account": 6}
EXECUTOR = {"test_account": 9}


def sign_and_send(agent: Agent, *sources: dict[str, Any]) -> None:
    for source in sources:
        assert api.sign_proposal(agent, source, None, yes)["signature"]


def hand_signature(agent: Agent, number: int) -> str:
    """The signature of an owner with a wallet of their own."""
    data = api.proposal_typed_data(agent, None)
    return "0x" + bytes(Account.sign_typed_data(accounts()[number].private_key, full_message=data).signature).hex()


def open_proposal(agent: Agent) -> Any:
    (document,) = api.list_proposals(agent)["proposals"]
    return document
