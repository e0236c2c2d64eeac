// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A token whose balances follow an index
/// @notice Balances are shares times the index; nothing is logged when the index moves. Anyone may mint, burn and move the index.
contract RebasingToken {
    string public name;
    string public symbol;
    uint256 public totalShares;
    mapping(address owner => uint256 shares) private held;
    mapping(address owner => mapping(address spender => uint256 raw)) public allowance;
    uint8 public immutable decimals;
    uint256 public extra;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    error TooLittle(uint256 available, uint256 wanted);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    /// @notice The index is one and so many parts in 10^18 more.
    function setExtra(uint256 extra_) external {
        extra = extra_;
    }

    function mint(address to, uint256 raw) external {
        held[to] += _shares(raw);
        emit Transfer(address(0), to, raw);
    }

    function burn(address from, uint256 raw) external {
        held[from] -= _shares(raw);
        emit Transfer(from, address(0), raw);
    }

    function approve(address spender, uint256 raw) external returns (bool) {
        allowance[msg.sender][spender] = raw;
        emit Approval(msg.sender, spender, raw);
        return true;
    }

    function transfer(address to, uint256 raw) external returns (bool) {
        _move(msg.sender, to, raw);
        return true;
    }

    function transferFrom(address from, address to, uint256 raw) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed < raw) revert TooLittle(allowed, raw);
        allowance[from][msg.sender] = allowed - raw;
        _move(from, to, raw);
        return true;
    }

    function balanceOf(address owner) public view returns (uint256) {
        return (held[owner] * (1e18 + extra)) / 1e18;
    }

    function _move(address from, address to, uint256 raw) private {
        uint256 shares = _shares(raw);
        if (held[from] < shares) revert TooLittle(balanceOf(from), raw);
        held[from] -= shares;
        held[to] += shares;
        emit Transfer(from, to, raw);
    }

    function _shares(uint256 raw) private view returns (uint256) {
        return (raw * 1e18) / (1e18 + extra);
    }
}
