// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Price feed for local chains with Chainlink's AggregatorV3Interface
/// @notice Anyone may write rounds, also broken ones: that is what tests need.
contract PriceFeed {
    struct Round {
        uint80 roundId;
        int256 answer;
        uint256 startedAt;
        uint256 updatedAt;
        uint80 answeredInRound;
    }

    string public description;
    uint8 public immutable decimals;
    uint256 public constant version = 4; // solhint-disable-line const-name-snakecase
    Round private _latest;
    mapping(uint80 roundId => Round round) private _rounds;
    /// @notice Between these bounds, both excluded, an aggregator's answers are prices.
    int192 public minAnswer = 1;
    int192 public maxAnswer = type(int176).max;

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    error NoData();

    constructor(string memory description_, uint8 decimals_) {
        description = description_;
        decimals = decimals_;
    }

    /// @notice A complete round at the block's time.
    function push(int256 answer) external {
        uint80 next = _latest.roundId + 1;
        setRound(next, answer, block.timestamp, block.timestamp, next);
    }

    /// @notice A complete round in each of these feeds.
    function pushAll(PriceFeed[] calldata feeds, int256[] calldata answers) external {
        for (uint256 i; i < feeds.length; ++i) {
            feeds[i].push(answers[i]);
        }
    }

    /// @notice Other bounds of the answers that follow.
    function setBounds(int192 minAnswer_, int192 maxAnswer_) external {
        (minAnswer, maxAnswer) = (minAnswer_, maxAnswer_);
    }

    /// @notice What stands behind the feed: a Chainlink proxy names its aggregator, this one is its own.
    function aggregator() external view returns (address) {
        return address(this);
    }

    function getRoundData(uint80 roundId) external view returns (uint80, int256, uint256, uint256, uint80) {
        return _answer(_rounds[roundId]);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return _answer(_latest);
    }

    /// @notice Any round, stale, incomplete or negative ones included.
    function setRound(
        uint80 roundId,
        int256 answer,
        uint256 startedAt,
        uint256 updatedAt,
        uint80 answeredInRound
    ) public {
        _latest = Round(roundId, answer, startedAt, updatedAt, answeredInRound);
        _rounds[roundId] = _latest;
        emit AnswerUpdated(answer, roundId, updatedAt);
    }

    function _answer(Round memory round) private pure returns (uint80, int256, uint256, uint256, uint80) {
        if (round.roundId == 0) revert NoData();
        return (round.roundId, round.answer, round.startedAt, round.updatedAt, round.answeredInRound);
    }
}
