// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IWrappedNative {
    function deposit() external payable;
    function withdraw(uint256 raw) external;
}

/// @title A whole rebalance in one transaction, all or nothing
/// @notice No owner and no state but a lock. It takes tokens of the caller alone, trades only in pools of the two
/// factories it was made for, and keeps nothing.
///
/// The program, packed, big-endian:
///   header 23 bytes: deadline u40 (Unix s), watched tokens u8, all tokens u8, floor i128 (numeraire base units)
///   each token 20 bytes: address; 0 is the native coin; the watched ones come first
///   each watched token 40 bytes: price u192 (numeraire base units per base unit, times 2^128), bound i128
///   each leg 39 bytes: kind u8, token in u8, token out u8, next u8, fee u24 (millionths), amount u128, least out u128
/// Kind is venue | source << 2 | sink << 4. Legs name tokens by their place in the list.
/// The caller's balance of each watched token must change by its bound or more: a negative bound is the most spent, a
/// positive one the least received. The sum of these changes times prices must reach the floor; a pool is never asked.
/// Each leg's least is held against what its pool reckons, so that a deposit to the caller in between hides nothing.
contract Rebalancer {
    address public immutable WRAPPED_NATIVE;
    address public immutable V2_FACTORY;
    bytes32 public immutable V2_INIT_CODE_HASH;
    address public immutable V3_FACTORY;
    bytes32 public immutable V3_INIT_CODE_HASH;

    uint256 private constant HEADER = 23;
    uint256 private constant TOKEN = 20;
    uint256 private constant TERMS = 40;
    uint256 private constant LEG = 39;

    uint256 private constant VENUE_V2 = 0;
    uint256 private constant VENUE_V3 = 1;
    uint256 private constant VENUE_NATIVE = 2;
    /// From and to the caller.
    uint256 private constant WALLET = 0;
    /// From (all that is there) and to this contract.
    uint256 private constant HERE = 1;
    /// Sent by an earlier leg into this leg's pair; to the pair of the token out and the leg's next token.
    uint256 private constant PAIR = 2;

    uint256 private constant FREE = 1;
    uint256 private constant BUSY = 2;
    uint256 private constant PIPS = 1_000_000;
    /// TickMath.MIN_SQRT_RATIO + 1 and MAX_SQRT_RATIO - 1: no limit.
    uint256 private constant LOWEST = 4295128740;
    uint256 private constant HIGHEST = 1461446703485210103287273052203988822378723970341;

    uint256 private constant BALANCE_OF = 0x70a08231;
    uint256 private constant TRANSFER = 0xa9059cbb;
    uint256 private constant TRANSFER_FROM = 0x23b872dd;
    uint256 private constant GET_RESERVES = 0x0902f1ac;
    uint256 private constant V2_SWAP = 0x022c0d9f;
    uint256 private constant V3_SWAP = 0x128acb08;

    /// FREE, BUSY, or the hash of the one callback that is awaited: pool, payer, token, most it may ask.
    uint256 private _lock = FREE;

    error Expired();
    error Reentered();
    error Malformed();
    error NotAwaited();
    error TooMuchAsked();
    error NoSuchPool(uint256 leg);
    error TooLittleOut(uint256 leg);
    error FilledInPart(uint256 leg);
    error TokenRefused(address token);
    error BelowBound(address token);
    error BelowFloor(int256 change);
    error LeftBehind(address token);
    error NativeRefused();

    constructor(
        address wrappedNative,
        address v2Factory,
        bytes32 v2InitCodeHash,
        address v3Factory,
        bytes32 v3InitCodeHash
    ) {
        WRAPPED_NATIVE = wrappedNative;
        V2_FACTORY = v2Factory;
        V2_INIT_CODE_HASH = v2InitCodeHash;
        V3_FACTORY = v3Factory;
        V3_INIT_CODE_HASH = v3InitCodeHash;
    }

    receive() external payable {
        if (msg.sender != WRAPPED_NATIVE) revert NativeRefused();
    }

    /// @notice Runs a program with the caller's tokens and the native coin sent along.
    function rebalance(bytes calldata program) external payable {
        if (_lock != FREE) revert Reentered();
        _lock = BUSY;
        uint256 nativeBefore = address(this).balance - msg.value;
        uint256 header = _word(program, 0);
        if (block.timestamp > header >> 216) revert Expired();
        uint256 watched = (header >> 208) & 0xff;
        uint256 count = (header >> 200) & 0xff;
        uint256 legs = HEADER + count * TOKEN + watched * TERMS;
        if (watched > count || program.length <= legs || (program.length - legs) % LEG != 0) revert Malformed();
        uint256[] memory balances = new uint256[](watched);
        for (uint256 i; i < watched; ++i) {
            address token = _token(program, i);
            balances[i] = token == address(0) ? msg.sender.balance + msg.value : _balance(token, msg.sender);
        }
        _keptNothing(program, _run(program, count, legs));
        _inBounds(program, balances, HEADER + count * TOKEN, int128(uint128(header >> 72)));
        if (address(this).balance != nativeBefore) revert LeftBehind(address(0));
        _lock = FREE;
    }

    /// @notice Pays the pool of the leg that runs, once, at most the leg's amount.
    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external {
        if (data.length != 96) revert NotAwaited();
        address payer = address(uint160(_word(data, 0)));
        address token = address(uint160(_word(data, 32)));
        uint256 most = _word(data, 64);
        if (_lock != _awaited(msg.sender, payer, token, most)) revert NotAwaited();
        _lock = BUSY;
        int256 asked = amount0 > 0 ? amount0 : amount1;
        if (asked <= 0 || uint256(asked) > most) revert TooMuchAsked();
        _pay(token, payer, msg.sender, uint256(asked));
    }

    /// Runs the legs in order; returns the tokens, as bits by their place, that some leg left in this contract.
    function _run(bytes calldata program, uint256 count, uint256 place) private returns (uint256 held) {
        uint256 number;
        while (place < program.length) {
            uint256 head = _word(program, place);
            uint256 least = _word(program, place + 23) >> 128;
            place = place + LEG;
            ++number;
            address tokenOut = _token(program, _listed(head >> 232, count));
            address to = msg.sender;
            uint256 sink = (head >> 252) & 3;
            if (sink == HERE) {
                to = address(this);
                held |= 1 << ((head >> 232) & 0xff);
            } else if (sink == PAIR) {
                to = _pair(tokenOut, _token(program, _listed(head >> 224, count)));
            } else if (sink != WALLET) {
                revert Malformed();
            }
            address tokenIn = _token(program, _listed(head >> 240, count));
            uint256 venue = (head >> 248) & 3;
            if (venue == VENUE_V3) {
                if (_swapV3(head, tokenIn, tokenOut, to, number) < int256(least)) revert TooLittleOut(number);
            } else if (venue == VENUE_V2) {
                _swapV2(head, tokenIn, tokenOut, to, least, number);
            } else if (venue == VENUE_NATIVE) {
                if (_convert(head, tokenIn, tokenOut, to) < least) revert TooLittleOut(number);
            } else {
                revert Malformed();
            }
        }
    }

    function _swapV3(uint256 head, address tokenIn, address tokenOut, address to, uint256 number) private returns (int256 out) {
        address pool = _pool(tokenIn, tokenOut, _fee(head));
        (address payer, uint256 amount) = (msg.sender, _amount(head));
        uint256 source = _source(head);
        if (source == HERE) {
            (payer, amount) = (address(this), _balance(tokenIn, address(this)));
            if (amount > type(uint128).max) revert TooMuchAsked();
        } else if (source != WALLET) {
            revert Malformed();
        }
        _lock = _awaited(pool, payer, tokenIn, amount);
        bool zeroForOne = tokenIn < tokenOut;
        uint256 taken;
        uint256 answered;
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, shl(224, V3_SWAP))
            mstore(add(at, 4), to)
            mstore(add(at, 36), zeroForOne)
            mstore(add(at, 68), amount)
            switch zeroForOne
            case 0 {
                mstore(add(at, 100), HIGHEST)
            }
            default {
                mstore(add(at, 100), LOWEST)
            }
            mstore(add(at, 132), 160)
            mstore(add(at, 164), 96)
            mstore(add(at, 196), payer)
            mstore(add(at, 228), tokenIn)
            mstore(add(at, 260), amount)
            if iszero(call(gas(), pool, 0, at, 292, 0, 64)) {
                returndatacopy(at, 0, returndatasize())
                revert(at, returndatasize())
            }
            answered := gt(returndatasize(), 63)
            taken := mload(shl(5, iszero(zeroForOne)))
            out := sub(0, mload(shl(5, zeroForOne)))
        }
        if (answered == 0) revert NoSuchPool(number);
        if (taken != amount) revert FilledInPart(number);
    }

    /// UniswapV2Library.getAmountOut on what arrived, in millionths: other forks take other fees. The pair has the last
    /// word on it, so that no overflow here gets anyone anything.
    function _swapV2(
        uint256 head,
        address tokenIn,
        address tokenOut,
        address to,
        uint256 least,
        uint256 number
    ) private {
        address pair = _pair(tokenIn, tokenOut);
        bool zeroForOne = tokenIn < tokenOut;
        uint256 reserveIn;
        uint256 reserveOut;
        uint256 answered;
        assembly ("memory-safe") {
            mstore(0, shl(224, GET_RESERVES))
            answered := and(gt(returndatasize(), 63), staticcall(gas(), pair, 0, 4, 0, 64))
            reserveIn := mload(shl(5, iszero(zeroForOne)))
            reserveOut := mload(shl(5, zeroForOne))
        }
        if (answered == 0) revert NoSuchPool(number);
        uint256 source = _source(head);
        if (source == WALLET) _pay(tokenIn, msg.sender, pair, _amount(head));
        else if (source == HERE) _pay(tokenIn, address(this), pair, _balance(tokenIn, address(this)));
        else if (source != PAIR) revert Malformed();
        uint256 arrived = _balance(tokenIn, pair);
        uint256 out;
        unchecked {
            uint256 kept = (arrived - reserveIn) * (PIPS - _fee(head));
            uint256 whole = reserveIn * PIPS + kept;
            out = whole == 0 ? 0 : (kept * reserveOut) / whole;
        }
        if (out < least) revert TooLittleOut(number);
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, shl(224, V2_SWAP))
            mstore(add(at, add(4, shl(5, iszero(zeroForOne)))), 0)
            mstore(add(at, add(4, shl(5, zeroForOne))), out)
            mstore(add(at, 68), to)
            mstore(add(at, 100), 128)
            mstore(add(at, 132), 0)
            if iszero(call(gas(), pair, 0, at, 164, 0, 0)) {
                returndatacopy(at, 0, returndatasize())
                revert(at, returndatasize())
            }
        }
    }

    /// Wraps native coin that was sent along, or unwraps for the caller.
    function _convert(uint256 head, address tokenIn, address tokenOut, address to) private returns (uint256 amount) {
        uint256 source = _source(head);
        amount = source == WALLET ? _amount(head) : _balance(WRAPPED_NATIVE, address(this));
        if (tokenIn == address(0) && tokenOut == WRAPPED_NATIVE && source == WALLET) {
            IWrappedNative(WRAPPED_NATIVE).deposit{value: amount}();
            if (to != address(this)) _pay(WRAPPED_NATIVE, address(this), to, amount);
        } else if (tokenIn == WRAPPED_NATIVE && tokenOut == address(0) && to == msg.sender && source <= HERE) {
            if (source == WALLET) _pay(WRAPPED_NATIVE, msg.sender, address(this), amount);
            IWrappedNative(WRAPPED_NATIVE).withdraw(amount);
            // solhint-disable-next-line avoid-low-level-calls
            (bool taken, ) = msg.sender.call{value: amount}("");
            if (!taken) revert NativeRefused();
        } else {
            revert Malformed();
        }
    }

    function _keptNothing(bytes calldata program, uint256 held) private view {
        for (uint256 i; held != 0; held >>= 1) {
            if (held & 1 != 0 && _balance(_token(program, i), address(this)) != 0) revert LeftBehind(_token(program, i));
            ++i;
        }
    }

    /// Each watched balance changed by its bound or more, and their value by the floor or more.
    function _inBounds(bytes calldata program, uint256[] memory balances, uint256 place, int256 floor) private view {
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
        if (value < floor << 128) revert BelowFloor(value >> 128);
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

    function _awaited(address pool, address payer, address token, uint256 most) private pure returns (uint256 hash) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, pool)
            mstore(add(at, 32), payer)
            mstore(add(at, 64), token)
            mstore(add(at, 96), most)
            hash := keccak256(at, 128)
        }
    }

    function _pair(address a, address b) private view returns (address) {
        bytes32 salt;
        if (a > b) (a, b) = (b, a);
        assembly ("memory-safe") {
            mstore(0, shl(96, a))
            mstore(20, shl(96, b))
            salt := keccak256(0, 40)
        }
        return _made(V2_FACTORY, salt, V2_INIT_CODE_HASH);
    }

    function _pool(address a, address b, uint256 fee) private view returns (address) {
        bytes32 salt;
        if (a > b) (a, b) = (b, a);
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, a)
            mstore(add(at, 32), b)
            mstore(add(at, 64), fee)
            salt := keccak256(at, 96)
        }
        return _made(V3_FACTORY, salt, V3_INIT_CODE_HASH);
    }

    /// EIP-1014: only this factory with this init code can have put code there.
    function _made(address factory, bytes32 salt, bytes32 initCodeHash) private pure returns (address pool) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, or(shl(248, 0xff), shl(88, factory)))
            mstore(add(at, 21), salt)
            mstore(add(at, 53), initCodeHash)
            pool := and(keccak256(at, 85), 0xffffffffffffffffffffffffffffffffffffffff)
        }
    }

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

    function _source(uint256 head) private pure returns (uint256) {
        return (head >> 250) & 3;
    }

    function _fee(uint256 head) private pure returns (uint256) {
        return (head >> 200) & 0xffffff;
    }

    function _amount(uint256 head) private pure returns (uint256) {
        return (head >> 72) & type(uint128).max;
    }

    function _word(bytes calldata data, uint256 place) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := calldataload(add(data.offset, place))
        }
    }
}
