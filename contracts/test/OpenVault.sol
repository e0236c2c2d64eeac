// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IPlainToken {
    function transfer(address to, uint256 raw) external returns (bool);
}

/// @title Keeps tokens of an owner, and lets anyone pay them out to the owner
/// @notice As vestings, staking rewards and bridges do: honest by itself, the means to hide a loss.
contract OpenVault {
    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function release(IPlainToken token, uint256 raw) external {
        token.transfer(owner, raw);
    }
}
