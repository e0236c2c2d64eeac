// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A token whose approvals answer true, and have another effect for one owner
/// @notice Its storage begins like that of TestToken, whose code it may replace.
contract ForgetfulToken {
    uint8 private constant IGNORES = 1;
    uint8 private constant HALVES = 2;
    uint8 private constant HIDES = 3;
    uint8 private constant DELAYS = 4;
    uint256 private constant DELAY_BLOCKS = 1_000_000;

    string public name;
    string public symbol;
    uint8 public immutable decimals;
    uint256 public totalSupply;
    mapping(address owner => uint256 raw) public balanceOf;
    mapping(address owner => mapping(address spender => uint256 raw)) private _allowed;
    mapping(address owner => uint8 how) public forgetting;
    mapping(address owner => uint256 blockNumber) private _approvedAt;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    error TooLittle(uint256 available, uint256 wanted);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    /// @notice 0: as usual. 1: approve sets nothing. 2: it sets half. 3: allowance answers 0. 4: it holds much later.
    function forget(address owner, uint8 how) external {
        forgetting[owner] = how;
    }

    function mint(address to, uint256 raw) external {
        totalSupply += raw;
        balanceOf[to] += raw;
        emit Transfer(address(0), to, raw);
    }

    function burn(address from, uint256 raw) external {
        totalSupply -= raw;
        balanceOf[from] -= raw;
        emit Transfer(from, address(0), raw);
    }

    function approve(address spender, uint256 raw) external returns (bool) {
        uint8 how = forgetting[msg.sender];
        if (how != IGNORES) _allowed[msg.sender][spender] = how == HALVES ? raw / 2 : raw;
        _approvedAt[msg.sender] = block.number;
        emit Approval(msg.sender, spender, raw);
        return true;
    }

    function allowance(address owner, address spender) external view returns (uint256) {
        return forgetting[owner] == HIDES ? 0 : _allowedNow(owner, spender);
    }

    function transfer(address to, uint256 raw) external returns (bool) {
        _move(msg.sender, to, raw);
        return true;
    }

    function transferFrom(address from, address to, uint256 raw) external returns (bool) {
        uint256 allowed = _allowedNow(from, msg.sender);
        if (allowed < raw) revert TooLittle(allowed, raw);
        _allowed[from][msg.sender] = allowed - raw;
        _move(from, to, raw);
        return true;
    }

    function _allowedNow(address owner, address spender) private view returns (uint256) {
        bool isEarly = forgetting[owner] == DELAYS && block.number < _approvedAt[owner] + DELAY_BLOCKS;
        return isEarly ? 0 : _allowed[owner][spender];
    }

    function _move(address from, address to, uint256 raw) private {
        if (balanceOf[from] < raw) revert TooLittle(balanceOf[from], raw);
        balanceOf[from] -= raw;
        balanceOf[to] += raw;
        emit Transfer(from, to, raw);
    }
}
