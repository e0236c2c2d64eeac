"""Documents of proposals to the owners of a Safe."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from agent.app.documents import (
    Address,
    Count,
    FromAttributes,
    Hash,
    Raw,
    SmallMoney,
    TxHash,
    one_of,
)
from agent.app.documents.plans import LegDocument

EXECUTED_PREFIX = "executed "
"""Beginning of the `ending` of a proposal whose call was executed."""


class ProposalCallDocument(TypedDict):
    """A plain call of the Safe. `function` is the name of the called function of `to`, its selector
    if it has no name here, "0x" for none; `value_wei` is the native coin that `to` gets.
    `spender` is that of an approval, and `recipients` get what swaps buy, a transfer or native coin;
    `amount_raw` is that of an approval, transfer or unwrapping of the token `to`, whose `token` is
    the symbol in the portfolio.
    """

    to: Address
    function: str
    value_wei: Raw
    spender: Address | None
    recipients: list[Address]
    token: str | None
    decimals: int | None
    amount_raw: Raw | None


class ProposalDocument(TypedDict):
    """A proposal and its signatures. Its state is "used" once the Safe's nonce is, "expired" past its
    deadline, "failing" while the call would fail, for example because prices left its minimums, for
    the reason `failure`; "stale" while its minimums are lower than the limits allow at the prices
    now, once its order has ended, or a rule of the signer refuses it, "unchecked" while the prices
    cannot be read, for the reason `failure`; else "waiting". It is neither signed nor executed here
    while `paused`. `ending` says what used the nonce. Times in Unix seconds: `expires_s` is when it
    is dropped here, `executable_until_s` until when the chain accepts it, null for at any time.
    `legs` are the swaps of a plan, and `why`, `cost`, `worst_case` and `weights_after_bps` are its
    own, at the prices then, in the `numeraire`. `to`, `function`, `spender` and `recipients` are
    those of its only call; of a batch those of MultiSendCallOnly, with the recipients of all its
    `calls`. `in_words` says what it does, as the document of its file does.
    """

    id: Annotated[str, FromAttributes("intent.id")]
    state: Annotated[str, one_of("waiting", "failing", "stale", "unchecked", "expired", "used")]
    description: Annotated[str, FromAttributes("intent.note")]
    purpose: Annotated[str, FromAttributes("intent.kind")]
    legs: list[LegDocument]
    failure: Annotated[str, FromAttributes("simulation.reason")]
    ending: str
    paused: bool
    why: str
    numeraire: str
    cost: SmallMoney | None
    worst_case: SmallMoney | None
    weights_after_bps: dict[str, int]
    to: Address
    function: str
    spender: Address | None
    recipients: list[Address]
    calls: list[ProposalCallDocument]
    in_words: list[str]
    safe: Annotated[Address, FromAttributes("safe.address")]
    safe_tx_hash: Hash
    nonce: Annotated[Count, FromAttributes("intent.tx.nonce")]
    owners: list[Address]
    signed_by: Annotated[list[Address], FromAttributes("signature_by_owner")]
    threshold: Count
    created_s: Annotated[int, FromAttributes("intent.created_s")]
    age_s: int
    expires_s: Annotated[int | None, FromAttributes("intent.deadline_s")]
    executable_until_s: int | None


class ProposalFileDocument(TypedDict):
    """The call in the file of a proposal: its hash, computed from the call, and a line about each plain
    call and swap, amounts in coins and addresses with names where the config knows them. `waits` is
    whether a proposal with this hash waits in the config's store, null without a config and store of
    this Safe; `id`, `description` and `why` are its id, title and reason, empty without one. `fault` is
    why nobody should sign it now, as far as the store knows without the chain; `rejected` what the
    recorded signatures of what it rejects still allow, empty for no rejection. `ending` says what became
    of one that waits no more, else it is empty. `config_chain_id` is the config's chain, null unless its
    wallet has the Safe's address.
    """

    safe: Address
    chain_id: int
    nonce: Count
    safe_tx_hash: Hash
    value_wei: Raw
    calls: list[str]
    waits: bool | None
    config_chain_id: int | None
    id: str
    description: str
    why: str
    fault: str
    rejected: str
    ending: str


class ProposalsDocument(TypedDict):
    """The open proposals; `held_up` says which fired exits wait for the end of the last one, and is empty
    for none.
    """

    proposals: list[ProposalDocument]
    held_up: str


class SignatureDocument(ProposalDocument):
    """A proposal and an owner's signature, 65 bytes as 0x-hex; empty if it was declined."""

    owner: Address
    signature: str


class CollectedSignaturesDocument(ProposalDocument):
    """A proposal, the owners whose signatures were added, and why others of the transaction service
    were left out.
    """

    added: list[Address]
    left_out: list[str]


class ProposalExecutionDocument(ProposalDocument):
    """A proposal as it was before its execution. Before anything is sent there is neither executor nor
    transaction.
    `next_command` is how the owner goes on once it is executed.
    """

    outcome: Annotated[str, one_of("planned", "declined", "executed", "failed")]
    executor: Address | None
    transaction: TxHash
    gas: Annotated[Count, FromAttributes("intent.tx.gas")]
    max_cost_wei: Raw
    next_command: str
