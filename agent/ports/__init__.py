"""What the engine asks of the world: readers, signers, senders, clocks, journals. Adapters are named in `wiring` only."""

from agent.ports.acting import Approval, Composer, Executor, Grant, Prepared, Sender, Signer, SigningKey, Simulation, TxSeen
from agent.ports.reading import Clock, EvidenceSource, Reader
from agent.ports.remembering import Journal

__all__ = [
    "Approval",
    "Clock",
    "Composer",
    "EvidenceSource",
    "Executor",
    "Grant",
    "Journal",
    "Prepared",
    "Reader",
    "Sender",
    "Signer",
    "SigningKey",
    "Simulation",
    "TxSeen",
]
