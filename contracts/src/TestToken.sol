// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title ERC-20 for local chains
/// @notice Anyone may mint and burn anybody's balance: worthless by design.
contract TestToken {
    string public name;
    string public symbol;
    uint8 public immutable decimals;
    uint256 public totalSupply;
    mapping(address owner => uint256 raw) public balanceOf;
    mapping(address owner => mapping(address spender => uint256 raw)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    error TooLittle(uint256 available, uint256 wanted);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 raw) external {
        totalSupply += raw;
        balanceOf[to] += raw;
        emit Transfer(address(0), to, raw);
    }

    function burn(address from, uint256 raw) external {
        if (balanceOf[from] < raw) revert TooLittle(balanceOf[from], raw);
        balanceOf[from] -= raw;
        totalSupply -= raw;
        emit Transfer(from, address(0), raw);
    }

    function approve(address spender, uint256 raw) external virtual returns (bool) {
        allowance[msg.sender][spender] = raw;
        emit Approval(msg.sender, spender, raw);
        return true;
    }

    function transfer(address to, uint256 raw) external virtual returns (bool) {
        _move(msg.sender, to, raw);
        return true;
    }

    function transferFrom(address from, address to, uint256 raw) external virtual returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed < raw) revert TooLittle(allowed, raw);
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - raw;
        _move(from, to, raw);
        return true;
    }

    function _move(address from, address to, uint256 raw) internal virtual {
        if (balanceOf[from] < raw) revert TooLittle(balanceOf[from], raw);
        balanceOf[from] -= raw;
        balanceOf[to] += raw;
        emit Transfer(from, to, raw);
    }
}
