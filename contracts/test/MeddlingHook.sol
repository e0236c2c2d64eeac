// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IMeddler {
    function moved() external;
}

interface ITakeable {
    function take(address currency, address to, uint256 amount) external;
}

/// @title A hook of Uniswap V4 that lets an accomplice in before and after each swap, and may keep a part of what is bought
contract MeddlingHook {
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

    IMeddler public accomplice;
    uint256 public share;

    function meddle(IMeddler accomplice_, uint256 share_) external {
        (accomplice, share) = (accomplice_, share_);
    }

    function beforeSwap(
        address,
        PoolKey calldata,
        SwapParams calldata,
        bytes calldata
    ) external returns (bytes4, int256, uint24) {
        accomplice.moved();
        return (this.beforeSwap.selector, 0, 0);
    }

    function afterSwap(
        address,
        PoolKey calldata key,
        SwapParams calldata params,
        int256,
        bytes calldata
    ) external returns (bytes4, int128) {
        if (share != 0) {
            ITakeable(msg.sender).take(params.zeroForOne ? key.currency1 : key.currency0, address(accomplice), share);
        }
        accomplice.moved();
        return (this.afterSwap.selector, int128(int256(share)));
    }
}
