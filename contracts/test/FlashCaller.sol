// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IFlashPair {
    function swap(uint256 amount0Out, uint256 amount1Out, address to, bytes calldata data) external;
}

interface IRebalancer {
    function rebalance(bytes calldata program) external payable;
}

interface IApprovable {
    function approve(address spender, uint256 raw) external returns (bool);
}

/// @title Runs a program in the middle of a flash swap, while the pair's reserves are those of before
contract FlashCaller {
    function borrow(
        IFlashPair pair,
        uint256 raw0,
        uint256 raw1,
        IRebalancer rebalancer,
        IApprovable token,
        bytes calldata program
    ) external {
        token.approve(address(rebalancer), type(uint256).max);
        pair.swap(raw0, raw1, address(this), abi.encode(rebalancer, program));
    }

    function uniswapV2Call(address, uint256, uint256, bytes calldata data) external {
        (IRebalancer rebalancer, bytes memory program) = abi.decode(data, (IRebalancer, bytes));
        rebalancer.rebalance(program);
    }
}
