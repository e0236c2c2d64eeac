// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IManager {
    function unlock(bytes calldata data) external returns (bytes memory);
    function sync(address currency) external;
    function settle() external payable returns (uint256);
    function take(address currency, address to, uint256 amount) external;
}

/// @title Provides liquidity and swaps in Uniswap V4's PoolManager, with the tokens and the native coin that it holds
contract ManagerHand {
    error NotPaid();

    receive() external payable {}

    /// @notice Calls modifyLiquidity or swap, which return their balance delta first, and settles it.
    function run(IManager manager, address currency0, address currency1, bytes calldata data) external {
        manager.unlock(abi.encode(currency0, currency1, data));
    }

    function unlockCallback(bytes calldata data) external returns (bytes memory) {
        (address currency0, address currency1, bytes memory action) = abi.decode(data, (address, address, bytes));
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory answer) = msg.sender.call(action);
        int256 delta;
        assembly {
            if iszero(done) {
                revert(add(answer, 32), mload(answer))
            }
            delta := mload(add(answer, 32))
        }
        _settle(currency0, delta >> 128);
        _settle(currency1, int128(delta));
        return "";
    }

    /// Tokens that return nothing are paid too.
    function _settle(address currency, int256 change) private {
        IManager manager = IManager(msg.sender);
        if (change > 0) manager.take(currency, address(this), uint256(change));
        if (change >= 0) return;
        manager.sync(currency);
        if (currency == address(0)) {
            manager.settle{value: uint256(-change)}();
        } else {
            bytes memory data = abi.encodeWithSignature("transfer(address,uint256)", msg.sender, uint256(-change));
            // solhint-disable-next-line avoid-low-level-calls
            (bool paid, ) = currency.call(data);
            if (!paid) revert NotPaid();
            manager.settle();
        }
    }
}
