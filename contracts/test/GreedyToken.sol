// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token whose transfer takes all the gas it is given, or answers with a megabyte
contract GreedyToken is TestToken {
    bool public wordy;

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function setWordy(bool wordy_) external {
        wordy = wordy_;
    }

    function _move(address from, address to, uint256 raw) internal override {
        super._move(from, to, raw);
        if (wordy) {
            assembly {
                return(0, 1048576)
            }
        }
        while (gasleft() > 0) ++totalSupply;
    }
}
