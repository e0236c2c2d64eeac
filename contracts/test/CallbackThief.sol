// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Calls a genuine pool for itself, and from inside its callback, whatever its name, somebody else
contract CallbackThief {
    address private _target;
    bytes private _words;

    // solhint-disable-next-line no-complex-fallback
    fallback() external payable {
        if (_words.length != 0) _call(_target, _words);
    }

    receive() external payable {}

    function act(address pool, bytes calldata data, address target, bytes calldata words) external {
        (_target, _words) = (target, words);
        _call(pool, data);
    }

    function _call(address target, bytes memory data) private {
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory answer) = target.call(data);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }
}
