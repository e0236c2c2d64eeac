// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface ICallee {
    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external;
}

/// @title A pool with Uniswap V3's interface that takes what it can and pays nothing, whatever it says
contract ForkPool {
    uint256 public swaps;
    uint256 public asks = 1;
    uint256 public extra;
    int256 public claims = 1e30;

    function pretend(uint256 asks_, uint256 extra_, int256 claims_) external {
        (asks, extra, claims) = (asks_, extra_, claims_);
    }

    /// @notice Asks a payer although it trades nothing.
    function demand(ICallee payer, int256 amount0, int256 amount1, bytes calldata data) external {
        payer.uniswapV3SwapCallback(amount0, amount1, data);
    }

    function swap(
        address,
        bool zeroForOne,
        int256 amount,
        uint160,
        bytes calldata data
    ) external returns (int256, int256) {
        ++swaps;
        int256 asked = amount + int256(extra);
        for (uint256 i; i < asks; ++i) {
            ICallee(msg.sender).uniswapV3SwapCallback(zeroForOne ? asked : -claims, zeroForOne ? -claims : asked, data);
        }
        return zeroForOne ? (amount, -claims) : (-claims, amount);
    }
}
