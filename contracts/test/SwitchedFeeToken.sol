// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that can begin to keep a share of its transfers at any time
/// @notice The receiver gets less than was sent; the share is burnt.
contract SwitchedFeeToken is TestToken {
    uint256 public feeBps;
    /// Only transfers from this address pay the fee; zero for all of them.
    address public payer;

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function setFee(uint256 feeBps_, address payer_) external {
        feeBps = feeBps_;
        payer = payer_;
    }

    function _move(address from, address to, uint256 raw) internal override {
        uint256 fee = payer == address(0) || payer == from ? (raw * feeBps) / 10_000 : 0;
        super._move(from, to, raw - fee);
        if (fee == 0) return;
        if (balanceOf[from] < fee) revert TooLittle(balanceOf[from], fee);
        balanceOf[from] -= fee;
        totalSupply -= fee;
        emit Transfer(from, address(0), fee);
    }
}
