// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Answers many questions about one block in one eth_call
/// @notice Never deployed: the creation code is called without a recipient, and what it returns in place of code is the
/// answer. Every question has a gas cap and a length bound of its own and fails alone: whatever a token does, the
/// others are answered. A question that the gas left cannot carry is marked, so that it can be asked again.
/// The request is: number of items (2 bytes), then per item a kind (1 byte) and
///   CALL  target (20) gas (3) longest answer (2) calldata length (2) calldata
///   CODE  target (20)
///   V3    pool (20) tick spacing (3) window in ticks (3) most ticks (2) seconds of TWAP (4)
///   V4    PoolManager (20) pool id (32), then as V3 from its tick spacing on; seconds of TWAP 0
///   VIA   where the target's address is asked (20), by which function (4), then as CALL without its target
/// The answer is: format (1 byte), then per item a status (1 byte) and, when that is OK,
///   CALL  length (2) data
///   CODE  code hash (32), zero where there is no code
///   VIA   as CALL
///   V3    sqrtPriceX96 (20) tick (3) observations kept (2) and to be kept (2) liquidity (16)
///         known from (3) known to (3) whether TWAP (1)
///         difference of tickCumulative (7) and of secondsPerLiquidityCumulativeX128 (20)
///         number of ticks (2), then per tick its index (3) and liquidityNet (16)
///   V4    as V3, without observations
contract PortfolioLens {
    // The first byte of what is returned must not be 0xEF (EIP-3541).
    uint256 private constant FORMAT = 1;
    uint256 private constant PAGE_BYTES = 24_576;

    uint256 private constant OK = 0;
    uint256 private constant FAILED = 1;
    uint256 private constant TOO_LONG = 2;
    uint256 private constant NO_CODE = 3;
    uint256 private constant UNREAD = 4;
    uint256 private constant NOT_INITIALISED = 5;

    uint256 private constant CALL = 1;
    uint256 private constant CODE = 2;
    uint256 private constant V3 = 3;
    uint256 private constant VIA = 4;
    uint256 private constant V4 = 5;

    uint256 private constant V3_HEAD_BYTES = 80;
    uint256 private constant V3_TICK_BYTES = 19;
    uint256 private constant V3_GAS = 100_000;
    uint256 private constant OBSERVE_GAS = 600_000;
    int256 private constant MAX_TICK = 887_272;
    uint256 private constant EXTSLOAD = 0x1e2eaeaf;

    /// Where the request is read, where the answer is written, and buffers of calls.
    struct Run {
        uint256 at;
        uint256 to;
        uint256 start;
        uint256 left;
        uint256 input;
        uint256 answer;
    }

    /// One V3 pool while it is read; `dry` says that gas ran short. `slot` is that of a V4 pool's state, 0 for V3.
    struct Pool {
        uint256 target;
        uint256 slot;
        int256 spacing;
        int256 tick;
        int256 from;
        int256 to;
        uint256 half;
        uint256 count;
        bool dry;
    }

    error UnknownKind(uint256 kind);

    constructor(bytes memory request) {
        Run memory run;
        uint256 at;
        uint256 start;
        uint256 input;
        uint256 answer;
        {
            bytes memory page = new bytes(PAGE_BYTES + 64);
            bytes memory scratch = new bytes(1024);
            assembly {
                at := add(request, 32)
                start := add(page, 32)
                input := add(scratch, 32)
                answer := add(scratch, 288)
            }
        }
        run.at = at;
        run.start = start;
        run.to = start;
        run.input = input;
        run.answer = answer;
        _put(run, FORMAT, 1);
        run.left = _take(run, 2);
        while (run.left > 0) {
            run.left -= 1;
            uint256 kind = _take(run, 1);
            if (kind == CALL) _call(run, _take(run, 20));
            else if (kind == VIA) _via(run);
            else if (kind == CODE) _code(run);
            else if (kind == V3 || kind == V4) _pool(run, kind == V4);
            else revert UnknownKind(kind);
        }
        uint256 end = run.to;
        assembly {
            return(start, sub(end, start))
        }
    }

    /// A call of the contract that another one names; the name is asked under the gas cap of a pool's view.
    function _via(Run memory run) private view {
        uint256 holder = _take(run, 20);
        uint256 selector = _take(run, 4);
        uint256 status = _ask(run, holder, selector, 0, 4, 32);
        if (status == OK) {
            uint256 target = _word(run, 0);
            if (target >> 160 == 0) return _call(run, target);
            status = FAILED;
        }
        _take(run, 5);
        run.at += _take(run, 2);
        _put(run, status, 1);
    }

    /// Copies at most the bytes asked for, whatever the answer's length.
    function _call(Run memory run, uint256 target) private view {
        uint256 cap = _take(run, 3);
        uint256 longest = _take(run, 2);
        uint256 length = _take(run, 2);
        uint256 input = run.at;
        run.at += length;
        if (_room(run) < longest + 3) return _put(run, UNREAD, 1);
        uint256 status = _ready(run, target, cap);
        if (status != OK) return _put(run, status, 1);
        uint256 size;
        uint256 into = run.to + 3;
        assembly {
            if iszero(staticcall(cap, target, input, length, into, longest)) {
                status := FAILED
            }
            size := returndatasize()
        }
        if (status == OK && size > longest) status = TOO_LONG;
        if (status != OK) return _put(run, status, 1);
        // The answer already lies behind its status and length, so these are written byte by byte.
        uint256 to = run.to;
        assembly {
            mstore8(to, OK)
            mstore8(add(to, 1), shr(8, size))
            mstore8(add(to, 2), size)
        }
        run.to = into + size;
    }

    function _code(Run memory run) private view {
        uint256 target = _take(run, 20);
        if (_room(run) < 33 || gasleft() < _reserve(run)) return _put(run, UNREAD, 1);
        uint256 hash;
        uint256 size;
        assembly {
            size := extcodesize(target)
            hash := extcodehash(target)
        }
        _put(run, OK, 1);
        _put(run, size == 0 ? 0 : hash, 32);
    }

    /// A V4 pool's state is StateLibrary's: a mapping in slot 6 of the PoolManager, read by extsload.
    function _pool(Run memory run, bool isV4) private view {
        Pool memory pool;
        pool.target = _take(run, 20);
        if (isV4) pool.slot = _hash(_take(run, 32), 6);
        pool.spacing = int256(_take(run, 3));
        int256 window = int256(_take(run, 3));
        pool.half = _take(run, 2) / 2;
        uint256 ago = _take(run, 4);
        if (_room(run) < 1 + V3_HEAD_BYTES + 2 * pool.half * V3_TICK_BYTES) return _put(run, UNREAD, 1);

        uint256 item = run.to;
        uint256 status = isV4 ? _load(run, pool, 0) : _ask(run, pool.target, 0x3850c7bd, 0, 4, 160); // slot0()
        if (status != OK) return _put(run, status, 1);
        uint256 price = _word(run, 0) & type(uint160).max;
        if (price == 0) return _put(run, NOT_INITIALISED, 1);
        pool.tick = isV4 ? int256(int24(int256(_word(run, 0) >> 160))) : int256(_word(run, 1));
        if (pool.tick > MAX_TICK || pool.tick < -MAX_TICK - 1) return _put(run, FAILED, 1); // no V3 pool; the sums below stay small
        uint256 observations = isV4 ? 0 : (_word(run, 3) & 0xffff) << 16 | (_word(run, 4) & 0xffff);
        status = isV4 ? _load(run, pool, 3) : _ask(run, pool.target, 0x1a686502, 0, 4, 32); // liquidity()
        if (status != OK) return _put(run, status, 1);

        _put(run, OK, 1);
        _put(run, price, 20);
        _put(run, uint256(pool.tick), 3);
        _put(run, observations, 4);
        _put(run, _word(run, 0), 16);
        uint256 bounds = run.to;
        run.to += 6;
        _twap(run, pool, ago);
        uint256 counted = run.to;
        run.to += 2;
        pool.from = pool.tick - window < -MAX_TICK ? -MAX_TICK : pool.tick - window;
        pool.to = pool.tick + window > MAX_TICK ? MAX_TICK : pool.tick + window;
        _down(run, pool);
        uint256 below = pool.count;
        pool.count = 0;
        if (!pool.dry) _up(run, pool);
        uint256 end = run.to;
        run.to = item;
        if (pool.dry) return _put(run, UNREAD, 1);
        run.to = bounds;
        _patch(run, (uint256(pool.from) & 0xffffff) << 24 | (uint256(pool.to) & 0xffffff), 6);
        run.to = counted;
        _patch(run, below + pool.count, 2);
        run.to = end;
    }

    /// Differences of the cumulatives over the last `ago` seconds; without them the pool is still answered.
    function _twap(Run memory run, Pool memory pool, uint256 ago) private view {
        uint256 seen;
        if (ago > 0) {
            uint256 input = run.input;
            uint256 answer = run.answer;
            uint256 target = pool.target;
            uint256 status = _ready(run, target, OBSERVE_GAS);
            if (status == UNREAD) pool.dry = true;
            if (status == OK) {
                assembly {
                    mstore(input, shl(224, 0x883bdbfd)) // observe(uint32[])
                    mstore(add(input, 4), 32)
                    mstore(add(input, 36), 2)
                    mstore(add(input, 68), ago)
                    mstore(add(input, 100), 0)
                    seen := staticcall(OBSERVE_GAS, target, input, 132, answer, 256)
                    seen := and(seen, eq(returndatasize(), 256))
                    seen := and(seen, and(eq(mload(answer), 64), eq(mload(add(answer, 32)), 160)))
                    seen := and(seen, and(eq(mload(add(answer, 64)), 2), eq(mload(add(answer, 160)), 2)))
                }
            }
        }
        unchecked {
            _put(run, seen, 1);
            _put(run, seen == 0 ? 0 : _word(run, 4) - _word(run, 3), 7);
            _put(run, seen == 0 ? 0 : _word(run, 7) - _word(run, 6), 20);
        }
    }

    /// Initialised ticks from the current one down to pool.from, or until half of the allowed number.
    function _down(Run memory run, Pool memory pool) private view {
        int256 at = _floor(pool.tick, pool.spacing);
        int256 last = -_floor(-pool.from, pool.spacing);
        while (at >= last && !pool.dry) {
            int256 word = at >> 8;
            uint256 bits = _bitmap(run, pool, word) & (type(uint256).max >> (255 - (uint256(at) & 255)));
            while (bits != 0) {
                uint256 bit = _highest(bits);
                bits ^= 1 << bit;
                int256 index = (word << 8) + int256(bit);
                if (index < last) return;
                if (!_tick(run, pool, index * pool.spacing)) {
                    pool.from = index * pool.spacing + 1;
                    return;
                }
            }
            at = (word << 8) - 1;
        }
    }

    /// Initialised ticks above the current one up to pool.to, or until half of the allowed number.
    function _up(Run memory run, Pool memory pool) private view {
        int256 at = _floor(pool.tick, pool.spacing) + 1;
        int256 last = _floor(pool.to, pool.spacing);
        while (at <= last && !pool.dry) {
            int256 word = at >> 8;
            uint256 bits = _bitmap(run, pool, word) & (type(uint256).max << (uint256(at) & 255));
            while (bits != 0) {
                uint256 bit = _highest(bits & (~bits + 1));
                bits &= bits - 1;
                int256 index = (word << 8) + int256(bit);
                if (index > last) return;
                if (!_tick(run, pool, index * pool.spacing)) {
                    pool.to = index * pool.spacing - 1;
                    return;
                }
            }
            at = (word + 1) << 8;
        }
    }

    function _bitmap(Run memory run, Pool memory pool, int256 word) private view returns (uint256) {
        uint256 status = pool.slot == 0
            ? _ask(run, pool.target, 0x5339c296, uint256(word), 36, 32) // tickBitmap(int16)
            : _ask(run, pool.target, EXTSLOAD, _hash(uint256(word), pool.slot + 5), 36, 32);
        if (status == OK) return _word(run, 0);
        pool.dry = true;
        return 0;
    }

    /// Writes one tick; false when it may not or cannot be read, so that the known window ends before it.
    function _tick(Run memory run, Pool memory pool, int256 tick) private view returns (bool) {
        if (pool.count == pool.half) return false;
        uint256 status = pool.slot == 0
            ? _ask(run, pool.target, 0xf30dba93, uint256(tick), 36, 64) // ticks(int24)
            : _ask(run, pool.target, EXTSLOAD, _hash(uint256(tick), pool.slot + 4), 36, 32);
        if (status != OK) {
            pool.dry = true;
            return false;
        }
        pool.count += 1;
        _put(run, uint256(tick), 3);
        _put(run, pool.slot == 0 ? _word(run, 1) : _word(run, 0) >> 128, 16);
        return true;
    }

    /// A word of a V4 pool's state.
    function _load(Run memory run, Pool memory pool, uint256 offset) private view returns (uint256) {
        return _ask(run, pool.target, EXTSLOAD, pool.slot + offset, 36, 32);
    }

    /// The slot of a mapping's value.
    function _hash(uint256 key, uint256 slot) private pure returns (uint256 hash) {
        assembly {
            mstore(0, key)
            mstore(32, slot)
            hash := keccak256(0, 64)
        }
    }

    /// One view call of a V3 pool with at most one argument; the first `size` bytes of the answer go to run.answer.
    function _ask(
        Run memory run,
        uint256 target,
        uint256 selector,
        uint256 argument,
        uint256 length,
        uint256 size
    ) private view returns (uint256 status) {
        status = _ready(run, target, V3_GAS);
        if (status != OK) return status;
        uint256 input = run.input;
        uint256 answer = run.answer;
        assembly {
            mstore(input, shl(224, selector))
            mstore(add(input, 4), argument)
            if iszero(staticcall(V3_GAS, target, input, length, answer, size)) {
                status := FAILED
            }
            if lt(returndatasize(), size) {
                status := FAILED
            }
        }
    }

    /// Whether a call with that gas can be made without starving the rest of the page (EIP-150 keeps a 64th back).
    function _ready(Run memory run, uint256 target, uint256 cap) private view returns (uint256) {
        if (gasleft() < _reserve(run) + cap + cap / 63) return UNREAD;
        uint256 size;
        assembly {
            size := extcodesize(target)
        }
        return size == 0 ? NO_CODE : OK;
    }

    /// Gas to end the page: 200 per byte returned (the price of code), a status for each item left, and the way there.
    function _reserve(Run memory run) private pure returns (uint256) {
        return 50_000 + 250 * (run.to - run.start) + 2_500 * run.left;
    }

    /// Bytes that the page still holds beside one status for each item left.
    function _room(Run memory run) private pure returns (uint256) {
        uint256 used = run.to - run.start + run.left;
        return used < PAGE_BYTES ? PAGE_BYTES - used : 0;
    }

    function _take(Run memory run, uint256 size) private pure returns (uint256 value) {
        uint256 at = run.at;
        assembly {
            value := shr(sub(256, mul(size, 8)), mload(at))
        }
        run.at = at + size;
    }

    function _put(Run memory run, uint256 value, uint256 size) private pure {
        uint256 to = run.to;
        assembly {
            mstore(to, shl(sub(256, mul(size, 8)), value))
        }
        run.to = to + size;
    }

    /// As _put, and what lies behind stays as it is.
    function _patch(Run memory run, uint256 value, uint256 size) private pure {
        uint256 to = run.to;
        for (uint256 i = 0; i < size; ++i) {
            uint256 shift = 8 * (size - 1 - i);
            assembly {
                mstore8(add(to, i), shr(shift, value))
            }
        }
        run.to = to + size;
    }

    function _word(Run memory run, uint256 index) private pure returns (uint256 value) {
        uint256 answer = run.answer;
        assembly {
            value := mload(add(answer, mul(index, 32)))
        }
    }

    function _floor(int256 a, int256 b) private pure returns (int256 q) {
        q = a / b;
        if (a % b < 0) q -= 1;
    }

    function _highest(uint256 bits) private pure returns (uint256 bit) {
        for (uint256 step = 128; step > 0; step >>= 1) {
            if (bits >> step != 0) {
                bits >>= step;
                bit += step;
            }
        }
    }
}
