// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A pool with Uniswap V3's interface that takes what it can and pays nothing, whatever it says
contract ForkPool {
    /// uniswapV3SwapCallback, or the name that another venue gives it.
    bytes4 public callback = 0xfa461e33;
    uint256 public swaps;
    uint256 public asks = 1;
    uint256 public extra;
    int256 public claims = 1e30;

    function pretend(uint256 asks_, uint256 extra_, int256 claims_) external {
        (asks, extra, claims) = (asks_, extra_, claims_);
    }

    function speak(bytes4 callback_) external {
        callback = callback_;
    }

    /// @notice Asks a payer although it trades nothing.
    function demand(address payer, int256 amount0, int256 amount1, bytes calldata data) external {
        _ask(payer, amount0, amount1, data);
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
            _ask(msg.sender, zeroForOne ? asked : -claims, zeroForOne ? -claims : asked, data);
        }
        return zeroForOne ? (amount, -claims) : (-claims, amount);
    }

    function _ask(address payer, int256 amount0, int256 amount1, bytes calldata data) private {
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory answer) = payer.call(abi.encodeWithSelector(callback, amount0, amount1, data));
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }
}
