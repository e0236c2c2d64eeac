// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IWrappedNative {
    function deposit() external payable;
    function withdraw(uint256 raw) external;
}

interface IPair {
    function getReserves() external view returns (uint112 reserve0, uint112 reserve1, uint32 timestamp);
    function swap(uint256 amount0Out, uint256 amount1Out, address to, bytes calldata data) external;
}

interface IConcentratedPool {
    function swap(
        address recipient,
        bool zeroForOne,
        int256 amountSpecified,
        uint160 sqrtPriceLimitX96,
        bytes calldata data
    ) external returns (int256 amount0, int256 amount1);
}

interface IPoolManager {
    function unlock(bytes calldata data) external returns (bytes memory);
    function sync(address currency) external;
    function settle() external payable returns (uint256 paid);
    function take(address currency, address to, uint256 amount) external;
}

/// @title A whole rebalance in one transaction, all or nothing, through pools of any listed factory
/// @notice No owner, no upgrade, no constructor arguments and no storage: one address on every chain. It takes tokens
/// of the caller alone, and keeps nothing. It needs transient storage (EIP-1153), as Uniswap V4 does.
///
/// The program, packed, big-endian:
///   header 24 bytes: deadline u40 (Unix s), watched tokens u8, all tokens u8, rows u8, floor i128 (numeraire base units)
///   each token 20 bytes: address; 0 is the native coin; the watched ones come first
///   each watched token 40 bytes: price u192 (numeraire base units per base unit, times 2^128), bound i128
///   each row 53 bytes: kind u8, maker address, word 32 bytes
///   each leg 44 bytes: flow u8, row u8, token in u8, token out u8, next token u8, next row u8, tier u24, spacing u24,
///     amount u128, least out u128
/// Legs name tokens and rows by their place in the lists. Flow is source | sink << 2.
///
/// kind of row | maker            | word                 | tier of its legs
/// PAIR_V2     | factory          | hash of init code    | fee, millionths
/// POOL_V3     | factory          | hash of init code    | fee, millionths; of Slipstream (its clone's hash) tick spacing
/// PANCAKE_V3  | deployer         | hash of init code    | fee, millionths
/// POOL_V4     | PoolManager      | hooks, 0 for none    | fee, millionths, or the flag of a dynamic fee; with spacing
/// WRAPPED     | wrapped native   | unused               | unused
///
/// The caller's balance of each watched token must change by its bound or more: a negative bound is the most spent, a
/// positive one the least received. The sum of these changes times prices must reach the floor; a pool is never asked.
/// Each leg's least is held against what its pool reckons, so that a deposit to the caller in between hides nothing.
contract Rebalancer {
    struct Layout {
        uint256 watched;
        uint256 tokens;
        uint256 rows;
        uint256 terms;
        uint256 firstRow;
        uint256 firstLeg;
    }

    struct Leg {
        uint256 number;
        address payer;
        uint256 source;
        uint256 sink;
        uint256 placeIn;
        uint256 placeOut;
        address tokenIn;
        address tokenOut;
        uint256 kind;
        address maker;
        uint256 word;
        uint256 tier;
        uint256 spacing;
        uint256 amount;
        uint256 least;
    }

    /// What the legs of one unlocking owe and own, by token: from the caller, to the caller, and for later legs.
    struct Tab {
        uint256[] pulled;
        uint256[] paid;
        uint256[] kept;
    }

    uint256 private constant HEADER = 24;
    uint256 private constant TOKEN = 20;
    uint256 private constant TERMS = 40;
    uint256 private constant ROW = 53;
    uint256 private constant LEG = 44;
    /// Behind the program in the data of an unlocking: payer, first leg and end of legs, a word each.
    uint256 private constant TAIL = 96;

    uint256 private constant PAIR_V2 = 0;
    uint256 private constant POOL_V3 = 1;
    uint256 private constant PANCAKE_V3 = 2;
    uint256 private constant POOL_V4 = 3;
    uint256 private constant WRAPPED = 4;
    /// From and to the caller; native coin of the caller is what was sent along.
    uint256 private constant WALLET = 0;
    /// From (all that is there) and to this contract, or its credit with the PoolManager.
    uint256 private constant HERE = 1;
    /// Sent by an earlier leg into this leg's pair; to the pair of the token out, the next token and the next row.
    uint256 private constant PAIR = 2;

    uint256 private constant FREE = 0;
    uint256 private constant BUSY = 1;
    uint256 private constant PIPS = 1_000_000;
    /// TickMath.MIN_SQRT_RATIO + 1 and MAX_SQRT_RATIO - 1: no limit.
    uint160 private constant LOWEST = 4295128740;
    uint160 private constant HIGHEST = 1461446703485210103287273052203988822378723970341;

    uint256 private constant BALANCE_OF = 0x70a08231;
    uint256 private constant TRANSFER = 0xa9059cbb;
    uint256 private constant TRANSFER_FROM = 0x23b872dd;
    uint256 private constant V4_SWAP = 0xf3cd914c;

    /// FREE, BUSY, or the hash of the one callback that is awaited: its kind, its sender, its data.
    uint256 private transient _lock;
    /// The tokens, as bits by their place, that some leg left in this contract.
    uint256 private transient _held;
    /// Native coin that was here before and is nobody's: only force brings it here.
    uint256 private transient _forced;

    error Expired();
    error Reentered();
    error Malformed();
    error NotAwaited();
    error TooMuchAsked();
    error NoSuchPool(uint256 leg);
    error NeverCalledBack(uint256 leg);
    error TooLittleOut(uint256 leg);
    error FilledInPart(uint256 leg);
    error TokenRefused(address token);
    error BelowBound(address token);
    error BelowFloor(int256 change);
    error NativeRefused();

    receive() external payable {
        if (_lock == FREE) revert NativeRefused();
    }

    /// @notice Runs a program with the caller's tokens and the native coin sent along.
    function rebalance(bytes calldata program) external payable {
        if (_lock != FREE) revert Reentered();
        (_lock, _held, _forced) = (BUSY, 0, address(this).balance - msg.value);
        if (block.timestamp > _word(program, 0) >> 216) revert Expired();
        Layout memory layout = _layout(program);
        uint256[] memory balances = new uint256[](layout.watched);
        for (uint256 i; i < layout.watched; ++i) {
            address token = _token(program, i);
            balances[i] = token == address(0) ? msg.sender.balance + msg.value : _balance(token, msg.sender);
        }
        _run(program, layout);
        _giveBack(program);
        _inBounds(program, layout.terms, balances);
        _lock = FREE;
    }

    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external {
        _payPool(POOL_V3, amount0, amount1, data);
    }

    function pancakeV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external {
        _payPool(PANCAKE_V3, amount0, amount1, data);
    }

    /// @notice Trades in the pools of the PoolManager that was unlocked, once, and settles.
    function unlockCallback(bytes calldata data) external returns (bytes memory) {
        _answer(POOL_V4, data);
        bytes calldata program = data[:data.length - TAIL];
        address payer = address(uint160(_word(data, program.length)));
        uint256 place = _word(data, program.length + 32);
        uint256 end = _word(data, program.length + 64);
        Layout memory layout = _layout(program);
        Tab memory tab = Tab(
            new uint256[](layout.tokens),
            new uint256[](layout.tokens),
            new uint256[](layout.tokens)
        );
        for (; place < end; place += LEG) _swapV4(_leg(program, layout, place, payer), tab);
        for (uint256 i; i < layout.tokens; ++i) {
            if (tab.pulled[i] != 0) _settle(_token(program, i), payer, tab.pulled[i]);
            if (tab.paid[i] != 0) IPoolManager(msg.sender).take(_token(program, i), payer, tab.paid[i]);
            if (tab.kept[i] != 0) {
                IPoolManager(msg.sender).take(_token(program, i), address(this), tab.kept[i]);
                _held |= 1 << i;
            }
        }
        return "";
    }

    /// Runs the legs in order; those in a row that belong to one PoolManager run in one unlocking.
    function _run(bytes calldata program, Layout memory layout) private {
        uint256 place = layout.firstLeg;
        while (place < program.length) {
            (uint256 kind, address manager, ) = _row(program, layout, _word(program, place) >> 240);
            if (kind == POOL_V4) {
                place = _unlock(program, layout, manager, place);
                continue;
            }
            Leg memory leg = _leg(program, layout, place, msg.sender);
            address to = leg.payer;
            if (leg.sink == HERE) {
                to = address(this);
                _held |= 1 << leg.placeOut;
            } else if (leg.sink == PAIR) {
                uint256 head = _word(program, place);
                (uint256 nextKind, address maker, uint256 word) = _row(program, layout, head >> 208);
                if (nextKind != PAIR_V2) revert Malformed();
                to = _pair(maker, word, leg.tokenOut, _token(program, _listed(head >> 216, layout.tokens)));
            } else if (leg.sink != WALLET) {
                revert Malformed();
            }
            if (leg.kind == PAIR_V2) _swapV2(leg, to);
            else if (leg.kind == WRAPPED) _convert(leg, to);
            else _swapV3(leg, to);
            place += LEG;
        }
    }

    /// Runs the legs from `place` on that are of this PoolManager; returns where they end.
    function _unlock(
        bytes calldata program,
        Layout memory layout,
        address manager,
        uint256 place
    ) private returns (uint256 end) {
        end = place + LEG;
        while (end < program.length) {
            (uint256 kind, address maker, ) = _row(program, layout, _word(program, end) >> 240);
            if (kind != POOL_V4 || maker != manager) break;
            end += LEG;
        }
        if (manager.code.length == 0) revert NoSuchPool(_number(layout, place));
        bytes memory data = abi.encodePacked(program, uint256(uint160(msg.sender)), place, end);
        _lock = _awaited(POOL_V4, manager, keccak256(data));
        IPoolManager(manager).unlock(data);
        if (_lock != BUSY) revert NeverCalledBack(_number(layout, place));
    }

    /// Its deltas go on the tab: what the caller owes and gets is moved once for each token, at the end.
    function _swapV4(Leg memory leg, Tab memory tab) private {
        uint256 amount = leg.amount;
        if (leg.source == WALLET) {
            tab.pulled[leg.placeIn] += amount;
        } else if (leg.source == HERE) {
            amount = tab.kept[leg.placeIn];
            tab.kept[leg.placeIn] = 0;
            uint256 here = _held & (1 << leg.placeIn) == 0 ? 0 : _all(leg.tokenIn);
            if (here != 0) _settle(leg.tokenIn, address(this), here);
            amount += here;
        } else {
            revert Malformed();
        }
        (int256 taken, int256 out) = _swapWithManager(leg, amount);
        _require(leg, amount, taken, out);
        if (leg.sink == WALLET) tab.paid[leg.placeOut] += uint256(out);
        else if (leg.sink == HERE) tab.kept[leg.placeOut] += uint256(out);
        else revert Malformed();
    }

    /// swap(PoolKey, SwapParams, bytes) of the PoolManager that called: its answer is the change of both deltas in a word.
    function _swapWithManager(Leg memory leg, uint256 amount) private returns (int256 taken, int256 out) {
        (address tokenIn, address tokenOut) = (leg.tokenIn, leg.tokenOut);
        (uint256 tier, uint256 spacing, uint256 hooks) = (leg.tier, leg.spacing, leg.word);
        int256 delta;
        assembly ("memory-safe") {
            let at := mload(0x40)
            let zeroForOne := lt(tokenIn, tokenOut)
            mstore(at, shl(224, V4_SWAP))
            mstore(add(at, add(4, shl(5, iszero(zeroForOne)))), tokenIn)
            mstore(add(at, add(4, shl(5, zeroForOne))), tokenOut)
            mstore(add(at, 68), tier)
            mstore(add(at, 100), spacing)
            mstore(add(at, 132), hooks)
            mstore(add(at, 164), zeroForOne)
            mstore(add(at, 196), sub(0, amount))
            switch zeroForOne
            case 0 {
                mstore(add(at, 228), HIGHEST)
            }
            default {
                mstore(add(at, 228), LOWEST)
            }
            mstore(add(at, 260), 288)
            mstore(add(at, 292), 0)
            if iszero(call(gas(), caller(), 0, at, 324, 0, 32)) {
                returndatacopy(at, 0, returndatasize())
                revert(at, returndatasize())
            }
            delta := mload(0)
        }
        (int256 change0, int256 change1) = (delta >> 128, int128(delta));
        return tokenIn < tokenOut ? (-change0, change1) : (-change1, change0);
    }

    /// Pays the PoolManager that called.
    function _settle(address token, address from, uint256 raw) private {
        IPoolManager(msg.sender).sync(token);
        if (token == address(0)) {
            IPoolManager(msg.sender).settle{value: raw}();
        } else {
            _pay(token, from, msg.sender, raw);
            IPoolManager(msg.sender).settle();
        }
    }

    function _swapV3(Leg memory leg, address to) private {
        if (leg.kind != POOL_V3 && leg.kind != PANCAKE_V3) revert Malformed();
        (address token0, address token1) = _sorted(leg.tokenIn, leg.tokenOut);
        address pool = _made(leg.maker, keccak256(abi.encode(token0, token1, leg.tier)), leg.word);
        if (pool.code.length == 0) revert NoSuchPool(leg.number);
        (address payer, uint256 amount) = (leg.payer, leg.amount);
        if (leg.source == HERE) {
            (payer, amount) = (address(this), _all(leg.tokenIn));
            if (amount > type(uint128).max) revert TooMuchAsked();
        } else if (leg.source != WALLET) {
            revert Malformed();
        }
        bytes memory data = abi.encode(payer, leg.tokenIn, amount);
        _lock = _awaited(leg.kind, pool, keccak256(data));
        bool zeroForOne = leg.tokenIn == token0;
        (int256 amount0, int256 amount1) = IConcentratedPool(pool).swap(
            to,
            zeroForOne,
            int256(amount),
            zeroForOne ? LOWEST : HIGHEST,
            data
        );
        if (_lock != BUSY) revert NeverCalledBack(leg.number);
        _require(leg, amount, zeroForOne ? amount0 : amount1, zeroForOne ? -amount1 : -amount0);
    }

    /// Pays the pool of the leg that runs, once, at most the leg's amount.
    function _payPool(uint256 kind, int256 amount0, int256 amount1, bytes calldata data) private {
        _answer(kind, data);
        (address payer, address token, uint256 most) = abi.decode(data, (address, address, uint256));
        int256 asked = amount0 > 0 ? amount0 : amount1;
        if (asked <= 0 || uint256(asked) > most) revert TooMuchAsked();
        _pay(token, payer, msg.sender, uint256(asked));
    }

    /// UniswapV2Library.getAmountOut on what arrived, in millionths: other forks take other fees. The pair has the last
    /// word on it, so that no overflow here gets anyone anything.
    function _swapV2(Leg memory leg, address to) private {
        address pair = _pair(leg.maker, leg.word, leg.tokenIn, leg.tokenOut);
        if (pair.code.length == 0) revert NoSuchPool(leg.number);
        if (leg.source == WALLET) _pay(leg.tokenIn, leg.payer, pair, leg.amount);
        else if (leg.source == HERE) _pay(leg.tokenIn, address(this), pair, _all(leg.tokenIn));
        else if (leg.source != PAIR) revert Malformed();
        bool zeroForOne = leg.tokenIn < leg.tokenOut;
        (uint256 reserveIn, uint256 reserveOut, ) = IPair(pair).getReserves();
        if (!zeroForOne) (reserveIn, reserveOut) = (reserveOut, reserveIn);
        uint256 arrived = _balance(leg.tokenIn, pair);
        uint256 out;
        unchecked {
            uint256 kept = (arrived - reserveIn) * (PIPS - leg.tier);
            uint256 whole = reserveIn * PIPS + kept;
            out = whole == 0 ? 0 : (kept * reserveOut) / whole;
        }
        if (out < leg.least) revert TooLittleOut(leg.number);
        IPair(pair).swap(zeroForOne ? 0 : out, zeroForOne ? out : 0, to, "");
    }

    /// Wraps native coin, or unwraps it; one to one, so that the amount is what must reach the least.
    function _convert(Leg memory leg, address to) private {
        bool wraps = leg.tokenIn == address(0) && leg.tokenOut == leg.maker;
        if (!wraps && (leg.tokenIn != leg.maker || leg.tokenOut != address(0))) revert Malformed();
        if (leg.source > HERE || (!wraps && leg.sink == PAIR)) revert Malformed();
        uint256 amount = leg.source == WALLET ? leg.amount : _all(leg.tokenIn);
        if (amount < leg.least) revert TooLittleOut(leg.number);
        if (wraps) {
            IWrappedNative(leg.maker).deposit{value: amount}();
            if (to != address(this)) _pay(leg.maker, address(this), to, amount);
        } else {
            if (leg.source == WALLET) _pay(leg.maker, leg.payer, address(this), amount);
            IWrappedNative(leg.maker).withdraw(amount);
            if (to != address(this)) _payNative(to, amount);
        }
    }

    /// What legs left here, and what is left of the coin sent along, goes to the caller.
    function _giveBack(bytes calldata program) private {
        uint256 held = _held;
        for (uint256 i; held != 0; ++i) {
            address token = _token(program, i);
            if (held & 1 != 0 && token != address(0)) {
                uint256 raw = _balance(token, address(this));
                if (raw != 0) _pay(token, address(this), msg.sender, raw);
            }
            held >>= 1;
        }
        uint256 left = _all(address(0));
        if (left != 0) _payNative(msg.sender, left);
    }

    /// Each watched balance changed by its bound or more, and their value by the floor or more.
    function _inBounds(bytes calldata program, uint256 place, uint256[] memory balances) private view {
        int256 value;
        for (uint256 i; i < balances.length; ++i) {
            address token = _token(program, i);
            uint256 balance = token == address(0) ? msg.sender.balance : _balance(token, msg.sender);
            int256 change;
            unchecked {
                change = int256(balance - balances[i]);
            }
            if (change < int128(uint128(_word(program, place + 24) >> 128))) revert BelowBound(token);
            value += change * int256(_word(program, place) >> 64);
            place += TERMS;
        }
        if (value < int256(int128(uint128(_word(program, 8) >> 128))) << 128) revert BelowFloor(value >> 128);
    }

    /// Reverts unless this is the callback that is awaited; it is awaited no more.
    function _answer(uint256 kind, bytes calldata data) private {
        if (_lock != _awaited(kind, msg.sender, keccak256(data))) revert NotAwaited();
        _lock = BUSY;
    }

    /// The pool took the whole amount, no more and no less, and gave the leg's least.
    function _require(Leg memory leg, uint256 amount, int256 taken, int256 out) private pure {
        if (taken != int256(amount)) revert FilledInPart(leg.number);
        if (out < int256(leg.least)) revert TooLittleOut(leg.number);
    }

    function _payNative(address to, uint256 wei_) private {
        // solhint-disable-next-line avoid-low-level-calls
        (bool taken, ) = to.call{value: wei_}("");
        if (!taken) revert NativeRefused();
    }

    /// Tokens that return nothing are paid too.
    function _pay(address token, address from, address to, uint256 raw) private {
        uint256 paid;
        assembly ("memory-safe") {
            let at := mload(0x40)
            let length := 68
            switch eq(from, address())
            case 0 {
                mstore(at, shl(224, TRANSFER_FROM))
                mstore(add(at, 4), from)
                mstore(add(at, 36), to)
                mstore(add(at, 68), raw)
                length := 100
            }
            default {
                mstore(at, shl(224, TRANSFER))
                mstore(add(at, 4), to)
                mstore(add(at, 36), raw)
            }
            paid := call(gas(), token, 0, at, length, 0, 32)
            switch returndatasize()
            case 0 {
                paid := and(paid, iszero(iszero(extcodesize(token))))
            }
            default {
                paid := and(paid, and(gt(returndatasize(), 31), eq(mload(0), 1)))
            }
        }
        if (paid == 0) revert TokenRefused(token);
    }

    /// All of a token, or of native coin, that this contract may spend.
    function _all(address token) private view returns (uint256) {
        return token == address(0) ? address(this).balance - _forced : _balance(token, address(this));
    }

    function _balance(address token, address owner) private view returns (uint256 raw) {
        uint256 answered;
        assembly ("memory-safe") {
            mstore(0, shl(224, BALANCE_OF))
            mstore(4, owner)
            answered := and(gt(returndatasize(), 31), staticcall(gas(), token, 0, 36, 0, 32))
            raw := mload(0)
        }
        if (answered == 0) revert TokenRefused(token);
    }

    function _layout(bytes calldata program) private pure returns (Layout memory layout) {
        uint256 header = _word(program, 0);
        uint256 length = program.length;
        unchecked {
            layout.watched = (header >> 208) & 0xff;
            layout.tokens = (header >> 200) & 0xff;
            layout.rows = (header >> 192) & 0xff;
            layout.terms = HEADER + layout.tokens * TOKEN;
            layout.firstRow = layout.terms + layout.watched * TERMS;
            layout.firstLeg = layout.firstRow + layout.rows * ROW;
            if (layout.watched > layout.tokens || length <= layout.firstLeg || (length - layout.firstLeg) % LEG != 0) {
                revert Malformed();
            }
        }
    }

    function _leg(
        bytes calldata program,
        Layout memory layout,
        uint256 place,
        address payer
    ) private pure returns (Leg memory leg) {
        uint256 head = _word(program, place);
        unchecked {
            leg.number = _number(layout, place);
            leg.payer = payer;
            leg.source = (head >> 248) & 3;
            leg.sink = head >> 250;
            leg.placeIn = _listed(head >> 232, layout.tokens);
            leg.placeOut = _listed(head >> 224, layout.tokens);
            leg.tokenIn = _token(program, leg.placeIn);
            leg.tokenOut = _token(program, leg.placeOut);
            (leg.kind, leg.maker, leg.word) = _row(program, layout, head >> 240);
            leg.tier = (head >> 184) & 0xffffff;
            leg.spacing = (head >> 160) & 0xffffff;
            leg.amount = _word(program, place + 12) >> 128;
            leg.least = _word(program, place + 28) >> 128;
        }
    }

    function _number(Layout memory layout, uint256 place) private pure returns (uint256) {
        unchecked {
            return (place - layout.firstLeg) / LEG + 1;
        }
    }

    /// The row whose number is in the lowest byte.
    function _row(
        bytes calldata program,
        Layout memory layout,
        uint256 number
    ) private pure returns (uint256 kind, address maker, uint256 word) {
        unchecked {
            uint256 place = layout.firstRow + _listed(number, layout.rows) * ROW;
            uint256 head = _word(program, place);
            return (head >> 248, address(uint160(head >> 88)), _word(program, place + 21));
        }
    }

    function _awaited(uint256 kind, address sender, bytes32 dataHash) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(kind, sender, dataHash)));
    }

    function _pair(address factory, uint256 initCodeHash, address a, address b) private pure returns (address) {
        (a, b) = _sorted(a, b);
        return _made(factory, keccak256(abi.encodePacked(a, b)), initCodeHash);
    }

    /// EIP-1014: only this maker with this init code can have put code there.
    function _made(address maker, bytes32 salt, uint256 initCodeHash) private pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", maker, salt, initCodeHash)))));
    }

    function _sorted(address a, address b) private pure returns (address, address) {
        return a < b ? (a, b) : (b, a);
    }

    /// The number in the lowest byte, of something in a list of so many.
    function _listed(uint256 number, uint256 count) private pure returns (uint256) {
        number &= 0xff;
        if (number >= count) revert Malformed();
        return number;
    }

    function _token(bytes calldata program, uint256 number) private pure returns (address) {
        unchecked {
            return address(uint160(_word(program, HEADER + number * TOKEN) >> 96));
        }
    }

    function _word(bytes calldata data, uint256 place) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := calldataload(add(data.offset, place))
        }
    }
}
