// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IPairToBorrowFrom {
    function swap(uint256 amount0Out, uint256 amount1Out, address to, bytes calldata data) external;
}

interface IPoolToBorrowFrom {
    function flash(address to, uint256 amount0, uint256 amount1, bytes calldata data) external;
}

interface IManagerToBorrowFrom {
    function unlock(bytes calldata data) external returns (bytes memory);
    function take(address currency, address to, uint256 amount) external;
}

/// @title Holds a token for the length of one call and says what became of it
/// @notice One of two hands that TokenScreen makes inside an eth_call: nothing of this is ever on a chain. The first borrows
/// from a pool, as a swap would pay it, gives what came to the second, and takes it from there back into the pool, as a
/// router does. What each balance was goes out by a revert from within the pool's callback, so that nothing has to be paid.
/// Whoever calls a hand otherwise was called by the token: a hook.
contract ScreenHand {
    uint256 public constant MAGIC = 0x7472696d74616273637265656e;
    uint256 private constant UNKNOWN = type(uint256).max;
    uint256 private constant LOOK_GAS = 200_000;
    uint256 private constant MOVE_GAS = 600_000;

    uint256 private constant FAILED = 0;
    uint256 private constant SILENT = 1;
    uint256 private constant TRUE = 2;
    uint256 private constant FALSE = 3;
    uint256 private constant ODD = 4;

    address private constant REGISTRY = 0x1820a4B7618BdE71Dce8cdc73aAB6C95905faD24; // ERC-1820

    address private token;
    address private pool;
    ScreenHand private other;
    uint256 private poolBefore;
    uint256 public hooks;

    /// @notice Lets tokens that ask the ERC-1820 registry find this hand's hooks.
    function register() external {
        if (REGISTRY.code.length == 0) return;
        _register(keccak256("ERC777TokensRecipient"));
        _register(keccak256("ERC777TokensSender"));
    }

    /// @notice Borrows `raw` of a token (or what the pool has) and returns the record; empty when the pool did not lend.
    function borrow(
        address token_,
        address pool_,
        uint256 kind,
        uint256 raw,
        ScreenHand other_
    ) external returns (uint256 status, uint256[12] memory record) {
        (token, pool, other) = (token_, pool_, other_);
        poolBefore = _balance(pool_);
        if (poolBefore == UNKNOWN) return (3, record);
        if (raw >= poolBefore) raw = poolBefore == 0 ? 0 : poolBefore - 1;
        if (raw == 0) return (2, record);
        if (!_lend(_ask(kind, raw), record)) {
            uint256[12] memory empty;
            return (1, empty);
        }
        record[0] = raw;
    }

    /// setInterfaceImplementer(this, hook, this); what the registry answers does not matter.
    function _register(bytes32 hook) private {
        bytes memory data = abi.encodeWithSelector(0x29965a1d, this, hook, this);
        assembly {
            pop(call(100000, REGISTRY, 0, add(data, 32), mload(data), 0, 0))
        }
    }

    function _ask(uint256 kind, uint256 raw) private view returns (bytes memory) {
        (uint256 raw0, uint256 raw1) = kind & 1 == 1 ? (uint256(0), raw) : (raw, uint256(0));
        if (kind & 4 == 4) return abi.encodeCall(IManagerToBorrowFrom.unlock, (abi.encode(raw)));
        return
            kind & 2 == 2
                ? abi.encodeCall(IPoolToBorrowFrom.flash, (address(this), raw0, raw1, hex"01"))
                : abi.encodeCall(IPairToBorrowFrom.swap, (raw0, raw1, address(this), hex"01"));
    }

    /// Whether the pool called back: then its call ended in the record.
    function _lend(bytes memory ask, uint256[12] memory record) private returns (bool) {
        address from = pool;
        bool ended;
        uint256 size;
        assembly {
            ended := call(gas(), from, 0, add(ask, 32), mload(ask), record, 384)
            size := returndatasize()
        }
        return !ended && size == 384 && record[0] == MAGIC;
    }

    function uniswapV2Call(address, uint256, uint256, bytes calldata) external {
        _try();
    }

    function uniswapV3FlashCallback(uint256, uint256, bytes calldata) external {
        _try();
    }

    function pancakeV3FlashCallback(uint256, uint256, bytes calldata) external {
        _try();
    }

    /// @notice Borrows from Uniswap V4's PoolManager, which was unlocked.
    function unlockCallback(bytes calldata data) external returns (bytes memory) {
        if (msg.sender == pool) IManagerToBorrowFrom(pool).take(token, address(this), abi.decode(data, (uint256)));
        _try();
        return "";
    }

    /// @notice Lets the first hand take what this one holds.
    function allow(address token_, uint256 raw) external returns (uint256) {
        return _move(token_, abi.encodeWithSignature("approve(address,uint256)", msg.sender, raw));
    }

    fallback() external {
        ++hooks;
    }

    function _try() private {
        if (msg.sender != pool) {
            ++hooks;
            return;
        }
        uint256[12] memory record;
        record[0] = MAGIC;
        record[1] = poolBefore;
        record[2] = _balance(address(this));
        record[3] = _balance(pool);
        record[4] = _move(token, abi.encodeWithSignature("transfer(address,uint256)", other, record[2]));
        record[5] = _balance(address(other));
        record[6] = _balance(address(this));
        record[7] = other.allow(token, record[5]);
        record[8] = _move(token, abi.encodeWithSignature("transferFrom(address,address,uint256)", other, pool, record[5]));
        record[9] = _balance(pool);
        record[10] = _balance(address(other));
        record[11] = hooks + other.hooks();
        assembly {
            revert(record, 384)
        }
    }

    /// What a token answers to a call that changes something.
    function _move(address token_, bytes memory data) private returns (uint256) {
        bool done;
        uint256 size;
        uint256 word;
        uint256 code;
        assembly {
            mstore(0, 0)
            done := call(MOVE_GAS, token_, 0, add(data, 32), mload(data), 0, 32)
            size := returndatasize()
            word := mload(0)
            code := extcodesize(token_)
        }
        if (!done || code == 0) return FAILED;
        if (size == 0) return SILENT;
        if (size != 32 || word > 1) return ODD;
        return word == 1 ? TRUE : FALSE;
    }

    function _balance(address owner) private view returns (uint256 raw) {
        bytes memory data = abi.encodeWithSignature("balanceOf(address)", owner);
        address token_ = token;
        assembly {
            mstore(0, 0)
            let done := staticcall(LOOK_GAS, token_, add(data, 32), mload(data), 0, 32)
            raw := mload(0)
            if or(iszero(done), iszero(eq(returndatasize(), 32))) {
                raw := not(0)
            }
        }
    }
}
