// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IBeacon {
    function implementation() external view returns (address);
}

/// @title Hands every call on to an implementation that can be changed
/// @notice `slot` says where the implementation lies, or the beacon that knows it (EIP-1967, EIP-1822, or a slot of its own).
contract TokenProxy {
    bytes32 private immutable slot;
    bool private immutable beacon;

    constructor(bytes32 slot_, bool beacon_, address first) {
        (slot, beacon) = (slot_, beacon_);
        assembly {
            sstore(slot_, first)
        }
    }

    // solhint-disable-next-line no-complex-fallback
    fallback() external {
        bytes32 at = slot;
        address to;
        assembly {
            to := sload(at)
        }
        if (beacon) to = IBeacon(to).implementation();
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), to, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            switch done
            case 0 {
                revert(0, returndatasize())
            }
            default {
                return(0, returndatasize())
            }
        }
    }
}
