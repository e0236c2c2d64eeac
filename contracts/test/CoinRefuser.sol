// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface ISpendable {
    function approve(address spender, uint256 raw) external returns (bool);
}

interface ICallable {
    function rebalance(bytes calldata program) external payable;
}

/// @title A wallet that takes no native coin
contract CoinRefuser {
    function run(ISpendable token, ICallable rebalancer, bytes calldata program) external {
        token.approve(address(rebalancer), type(uint256).max);
        rebalancer.rebalance(program);
    }
}
