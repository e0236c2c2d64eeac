// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that keeps a share of every transfer
/// @notice The receiver gets less than was sent; the share is burnt.
contract FeeOnTransfer is TestToken {
    uint256 public immutable feeBps;

    constructor(
        string memory name_,
        string memory symbol_,
        uint8 decimals_,
        uint256 feeBps_
    ) TestToken(name_, symbol_, decimals_) {
        feeBps = feeBps_;
    }

    function _move(address from, address to, uint256 raw) internal override {
        uint256 fee = (raw * feeBps) / 10_000;
        super._move(from, to, raw - fee);
        if (balanceOf[from] < fee) revert TooLittle(balanceOf[from], fee);
        balanceOf[from] -= fee;
        totalSupply -= fee;
        emit Transfer(from, address(0), fee);
    }
}
