// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IPoolTokens {
    function token0() external view returns (address);
    function token1() external view returns (address);
}

/// @title Mints and swaps in any pool with callbacks like Uniswap V3's, and pays with the tokens that it holds
contract PoolHand {
    error NotPaid();

    /// @notice Answers each callback, whatever its name: all start with the two amounts that are asked.
    // solhint-disable-next-line no-complex-fallback
    fallback() external {
        (int256 asked0, int256 asked1) = abi.decode(msg.data[4:], (int256, int256));
        if (asked0 > 0) _pay(IPoolTokens(msg.sender).token0(), uint256(asked0));
        if (asked1 > 0) _pay(IPoolTokens(msg.sender).token1(), uint256(asked1));
    }

    function run(address pool, bytes calldata data) external returns (bytes memory answer) {
        bool done;
        // solhint-disable-next-line avoid-low-level-calls
        (done, answer) = pool.call(data);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }

    /// Tokens that return nothing are paid too.
    function _pay(address token, uint256 raw) private {
        bytes memory data = abi.encodeWithSignature("transfer(address,uint256)", msg.sender, raw);
        // solhint-disable-next-line avoid-low-level-calls
        (bool paid, ) = token.call(data);
        if (!paid) revert NotPaid();
    }
}
