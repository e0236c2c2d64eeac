// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that refuses single senders, recipients and approvals, and lists them nowhere
/// @notice It refuses by a revert, or by returning false, as chosen for each.
contract RefusingToken is TestToken {
    uint8 private constant REVERTS = 1;
    uint8 private constant IS_FALSE = 2;

    mapping(address owner => uint8 how) public sending;
    mapping(address owner => uint8 how) public receiving;
    uint8 public zeroApproval;
    uint8 public changedApproval;

    error Refused();

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function refuseTransfers(address owner, uint8 sending_, uint8 receiving_) external {
        sending[owner] = sending_;
        receiving[owner] = receiving_;
    }

    /// @notice How approve ends for zero, and for an amount while another is allowed.
    function refuseApprovals(uint8 zero, uint8 changed) external {
        zeroApproval = zero;
        changedApproval = changed;
    }

    function approve(address spender, uint256 raw) external override returns (bool) {
        uint8 how = raw == 0 ? zeroApproval : allowance[msg.sender][spender] == 0 ? 0 : changedApproval;
        if (_isRefused(how)) return false;
        allowance[msg.sender][spender] = raw;
        emit Approval(msg.sender, spender, raw);
        return true;
    }

    function transfer(address to, uint256 raw) external override returns (bool) {
        if (_isRefused(sending[msg.sender]) || _isRefused(receiving[to])) return false;
        _move(msg.sender, to, raw);
        return true;
    }

    function transferFrom(address from, address to, uint256 raw) external override returns (bool) {
        if (_isRefused(sending[from]) || _isRefused(receiving[to])) return false;
        uint256 allowed = allowance[from][msg.sender];
        if (allowed < raw) revert TooLittle(allowed, raw);
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - raw;
        _move(from, to, raw);
        return true;
    }

    function _isRefused(uint8 how) private pure returns (bool) {
        if (how == REVERTS) revert Refused();
        return how == IS_FALSE;
    }
}
