// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IUnlocked {
    function unlockCallback(bytes calldata data) external returns (bytes memory);
}

/// @title A PoolManager that calls back as often and with what it likes, claims any trade, and pays nothing
contract ForgedManager {
    struct PoolKey {
        address currency0;
        address currency1;
        uint24 fee;
        int24 tickSpacing;
        address hooks;
    }

    struct SwapParams {
        bool zeroForOne;
        int256 amountSpecified;
        uint160 sqrtPriceLimitX96;
    }

    uint256 public calls;
    int256 public extra;
    int128 public claims;
    bytes public substitute;
    uint256 public asked;

    constructor(uint256 calls_, int256 extra_, int128 claims_, bytes memory substitute_) {
        (calls, extra, claims, substitute) = (calls_, extra_, claims_, substitute_);
    }

    function unlock(bytes calldata data) external returns (bytes memory) {
        bytes memory words = substitute;
        if (words.length == 0) words = data;
        for (uint256 i; i < calls; ++i) IUnlocked(msg.sender).unlockCallback(words);
        return "";
    }

    function swap(PoolKey calldata, SwapParams calldata params, bytes calldata) external view returns (int256) {
        int256 taken = params.amountSpecified - extra;
        (int256 amount0, int256 amount1) = params.zeroForOne ? (taken, int256(claims)) : (int256(claims), taken);
        return (amount0 << 128) | int256(uint256(uint128(int128(amount1))));
    }

    function sync(address) external {
        ++asked;
    }

    function settle() external payable returns (uint256) {
        return ++asked;
    }

    function take(address, address, uint256) external {
        ++asked;
    }
}
