// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Whoever a malicious token lets in: runs prepared calls, and remembers what became of each
/// @notice A call that fails is swallowed, so that the victim's transaction goes on as if nothing had been tried.
contract Accomplice {
    struct Step {
        address target;
        bytes data;
    }

    Step[] private _steps;
    bool private _busy;
    /// Transfers of the token to let pass before the calls run.
    uint256 public wait;
    uint256 public tried;
    uint256 public succeeded;
    bytes4[] public errors;

    function prepare(Step[] calldata steps, uint256 wait_) external {
        delete _steps;
        for (uint256 i; i < steps.length; ++i) _steps.push(steps[i]);
        wait = wait_;
    }

    /// @notice Called by the token.
    function moved() external {
        if (_busy || _steps.length == 0) return;
        if (wait > 0) {
            --wait;
            return;
        }
        strike();
    }

    /// @notice Called by the thief himself.
    function strike() public {
        _busy = true;
        for (uint256 i; i < _steps.length; ++i) {
            ++tried;
            // solhint-disable-next-line avoid-low-level-calls
            (bool ok, bytes memory answer) = _steps[i].target.call(_steps[i].data);
            if (ok) ++succeeded;
            errors.push(ok || answer.length < 4 ? bytes4(0) : bytes4(answer));
        }
        delete _steps;
        _busy = false;
    }
}
