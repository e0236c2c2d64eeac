"""Fee modules of Slipstream's factories, for `trimtab doctor`: address, code hash, and whether the
module's rule is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent import wiring
from agent.amm.v3.slipstream import SlipstreamPool
from agent.app.documents.owner import OK, WARN, CheckLine
from agent.chain.lens import CallItem, CallStatus, CodeItem, answer_uint, query_lens
from agent.chain.rpc import block_ref_at_hash, hex_data
from agent.model import Snapshot
from agent.signing.calldata import address_from_word
from agent.units import NATIVE
from agent.venues.kinds.slipstream import SWAP_FEE_MODULE

_UNKNOWN_REMEDY = "leave the venue out, or accept that a swap reverts if its fee rises by more than limits.slippage"


def fee_module_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckLine]:
    """Yield a row for each venue whose fees a module decides. A rule counts as known for a pool whose
    fee at the block follows from the module's settings. Raises Retryable.
    """
    for table in context.config.venues:
        pools = [
            pool
            for pool in snapshot.pools
            if isinstance(pool, SlipstreamPool) and pool.venue == table.name
        ]
        if not pools:
            continue
        yield (
            f"fee module {table.name}",
            *_fee_module_finding(context, snapshot, table.factory, pools),
        )


def _fee_module_finding(
    context: wiring.AgentContext, snapshot: Snapshot, factory: str, pools: Sequence[SlipstreamPool]
) -> tuple[str, str, str]:
    """Return state, finding and remedy of a factory's module at the block of the pools."""
    block_ref = block_ref_at_hash(snapshot.head.hash)
    module_call = CallItem(factory, SWAP_FEE_MODULE)
    (module_answer,) = query_lens(context.transport, [module_call], block_ref)
    module_word = answer_uint(module_answer, 160)
    if isinstance(module_word, CallStatus):
        return WARN, f"the factory does not name it: {module_word.why}", _UNKNOWN_REMEDY
    module = address_from_word(module_word)
    if module == NATIVE:
        return OK, "none: the fee of each tick spacing is fixed", ""
    (code_answer,) = query_lens(context.transport, [CodeItem(module)], block_ref)
    if not isinstance(code_answer, bytes):
        code_status = code_answer if isinstance(code_answer, CallStatus) else CallStatus.MALFORMED
        return WARN, f"{module}, code hash unread: {code_status.why}", _UNKNOWN_REMEDY
    code_text = f"{module}, code hash {hex_data(code_answer)}"
    unknown_pools = [pool for pool in pools if pool.dynamic_fee is None]
    if not unknown_pools:
        return OK, f"its rule is known: {code_text}", ""
    return (
        WARN,
        f"its rule is unknown for {len(unknown_pools)} of {len(pools)} pools, whose fee counts as"
        f" of the block read: {code_text}",
        _UNKNOWN_REMEDY,
    )
