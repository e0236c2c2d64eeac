"""What the engine asks of the world: readers, signers, senders, clocks, journals. Adapters are named in `wiring` only."""

from agent.ports.acting import (
    Approval,
    Carried,
    Composer,
    Executor,
    ForeignSigner,
    Grant,
    NamesTakers,
    Outbox,
    Prepared,
    Sender,
    Signer,
    SigningKey,
    Simulation,
    TxSeen,
)
from agent.ports.reading import Clock, EvidenceSource, Reader
from agent.ports.remembering import Journal, ProposalBook

__all__ = [
    "Approval",
    "Carried",
    "Clock",
    "Composer",
    "EvidenceSource",
    "Executor",
    "ForeignSigner",
    "Grant",
    "Journal",
    "NamesTakers",
    "Outbox",
    "Prepared",
    "ProposalBook",
    "Reader",
    "Sender",
    "Signer",
    "SigningKey",
    "Simulation",
    "TxSeen",
]
