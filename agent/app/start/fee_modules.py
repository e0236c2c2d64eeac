"""Fee modules of Slipstream's factories, for `trimtab doctor`: address, code hash, and whether the
module's rule is known.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent import wiring
from agent.amm.v3.slipstream import SlipstreamPool
from agent.app.documents.owner import OK, WARN, CheckLine
from agent.chain.lens import CallItem, CodeItem, answer_uint, query_lens
from agent.chain.rpc import hex_data
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
        (module_answer,) = query_lens(context.transport, [CallItem(table.factory, SWAP_FEE_MODULE)])
        module_word = answer_uint(module_answer, 160)
        module = address_from_word(module_word) if isinstance(module_word, int) else NATIVE
        check_name = f"fee module {table.name}"
        if module == NATIVE:
            yield check_name, OK, "none: the fee of each tick spacing is fixed", ""
            continue
        (code_answer,) = query_lens(context.transport, [CodeItem(module)])
        hash_text = hex_data(code_answer) if isinstance(code_answer, bytes) else "unread"
        code_text = f"{module}, code hash {hash_text}"
        unknown_pools = [pool for pool in pools if pool.dynamic_fee is None]
        if not unknown_pools:
            yield check_name, OK, f"its rule is known: {code_text}", ""
            continue
        yield (
            check_name,
            WARN,
            f"its rule is unknown for {len(unknown_pools)} of {len(pools)} pools, whose fee counts as"
            f" of the block read: {code_text}",
            _UNKNOWN_REMEDY,
        )
