"""Deflated Sharpe ratios, the chance of over-fitting and intervals, against the papers' numbers and independent computations."""

from __future__ import annotations

from itertools import combinations
from math import log, sqrt

import numpy as np
import pytest

from agent.backtest.tune import statistics
from agent.backtest.tune.statistics import (
    Objective,
    block_length,
    bootstrap_interval,
    deflated_sharpe,
    expected_maximum,
    objective_scores,
    overfitting_probability,
    probabilistic_sharpe,
    resampled_means,
)

PER_YEAR = 250


def test_the_deflated_sharpe_ratio_is_that_of_the_papers_example() -> None:
    # Bailey & López de Prado 2014, "A numerical example": annualised SR 2.5 over 1,250 days, the trials' annualised variance 1/2.
    sharpe = 2.5 / sqrt(PER_YEAR)
    variance = 0.5 / PER_YEAR
    threshold = expected_maximum(variance, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(sharpe, threshold, 1_250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    # With 46 trials it passes 95 %; had returns been normal, with 88.
    assert probabilistic_sharpe(sharpe, expected_maximum(variance, 46), 1_250, -3, 10) == pytest.approx(0.9505, abs=1e-4)
    assert probabilistic_sharpe(sharpe, expected_maximum(variance, 88), 1_250, 0, 3) == pytest.approx(0.9505, abs=1e-4)


def test_the_expected_maximum_is_what_draws_show() -> None:
    drawn = np.random.default_rng(1).normal(0, 0.3, (4_000, 200)).max(axis=1).mean()
    assert expected_maximum(0.09, 200) == pytest.approx(drawn, rel=0.02)
    assert expected_maximum(0.09, 1) == 0.0


def test_luck_is_deflated_away_and_skill_is_not() -> None:
    noise = np.random.default_rng(2).normal(0, 0.01, (1_000, 100))
    lucky = int(objective_scores(noise, Objective.SHARPE).argmax())
    deflated = deflated_sharpe(noise, lucky)
    assert deflated.trial_count == 100
    assert deflated.sharpe == pytest.approx(noise[:, lucky].mean() / noise[:, lucky].std())
    assert probabilistic_sharpe(deflated.sharpe, 0.0, 1_000, 0, 3) > 0.95  # taken alone it looks like skill
    assert deflated.probability < 0.9
    noise[:, 3] += 0.003
    skilled = deflated_sharpe(noise, 3)
    assert skilled.probability > 0.99
    assert deflated_sharpe(np.zeros((50, 3)), 0) is None


def test_deflated_ratio__has_the_moments_of_its_own_returns() -> None:
    from scipy.stats import norm  # slow to import

    returns = np.random.default_rng(10).exponential(0.01, (60, 4)) - 0.0095
    scores = objective_scores(returns, Objective.SHARPE)
    own = (returns[:, 2] - returns[:, 2].mean()) / returns[:, 2].std()
    deflated = deflated_sharpe(returns, 2)
    assert deflated.threshold == pytest.approx(expected_maximum(sum((scores - scores.mean()) ** 2) / 3, 4))
    spread = 1 - (own**3).mean() * scores[2] + ((own**4).mean() - 1) / 4 * scores[2] ** 2
    assert deflated.probability == pytest.approx(norm.cdf((scores[2] - deflated.threshold) * sqrt(59 / spread)))


def plain_overfitting(returns: np.ndarray, blocks: int, sharpe: bool) -> float:
    """Straight from the paper's five steps, with SciPy's ranks."""
    from scipy.stats import rankdata  # slow to import

    pieces = np.split(returns, blocks)
    below = []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.vstack([pieces[i] for i in half])
        outside = np.vstack([pieces[i] for i in range(blocks) if i not in half])
        score = (lambda x: x.mean(axis=0) / x.std(axis=0)) if sharpe else (lambda x: x.mean(axis=0))
        rank = rankdata(score(outside))[int(score(inside).argmax())]
        share = rank / (returns.shape[1] + 1)
        logit = log(share / (1 - share))
        below.append(0.5 if abs(logit) < 1e-12 else float(logit < 0))
    return float(np.mean(below))


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("settings", [2, 7, 10])
def test_overfitting_is_what_the_papers_steps_give(objective: Objective, settings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_BLOCKS", 8)
    returns = np.random.default_rng(settings).normal(0.001, 0.01, (48, settings)) + np.linspace(0, 0.001, settings)
    overfitting_estimate = overfitting_probability(returns, objective)
    assert (overfitting_estimate.split_count, overfitting_estimate.block_count) == (70, 8)
    assert overfitting_estimate.probability == pytest.approx(plain_overfitting(returns, 8, objective is Objective.SHARPE))


def test_overfitting__leaves_out_the_oldest_and_is_alike_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_BLOCKS", 8)
    returns = np.random.default_rng(12).normal(0, 0.01, (48, 6))
    whole = overfitting_probability(returns, Objective.GROWTH)
    oldest = np.zeros((7, 6))
    oldest[:, 5] = 1.0
    assert overfitting_probability(np.vstack([oldest, returns]), Objective.GROWTH) == whole
    monkeypatch.setattr(statistics, "_MAX_VALUES_PER_PASS", 6 * 9)  # nine ways to halve at once: seven parts and a rest
    assert overfitting_probability(returns, Objective.GROWTH) == whole


def test_overfitting__is_half_on_noise_and_none_if_one_dominates(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).normal(0, 0.01, (60, 160, 20))
    with monkeypatch.context() as fewer:
        fewer.setattr(statistics, "MAX_BLOCKS", 8)
        overfitting_estimates = [overfitting_probability(column, Objective.SHARPE) for column in noise]
    assert np.mean([estimate.probability for estimate in overfitting_estimates if estimate]) == pytest.approx(0.5, abs=0.05)
    best = noise[0].copy()
    best[:, 7] += 0.02
    dominated = overfitting_probability(best, Objective.SHARPE)
    assert (dominated.probability, dominated.split_count, dominated.block_count) == (0.0, 12_870, 16)


def test_equal_settings__are_neither_above_nor_below_the_median() -> None:
    column = np.random.default_rng(4).normal(0, 0.01, (64, 1))
    overfitting_estimate = overfitting_probability(np.repeat(column, 5, axis=1), Objective.GROWTH)
    assert overfitting_estimate.probability == 0.5
    nearly = overfitting_probability(column + 1e-17 * np.arange(5), Objective.GROWTH)  # as far apart as sums of floats in another order
    assert nearly.probability == 0.5


def test_too_little_says_nothing() -> None:
    assert overfitting_probability(np.ones((64, 1)), Objective.GROWTH) is None
    assert overfitting_probability(np.ones((15, 4)), Objective.GROWTH) is None
    assert bootstrap_interval(np.ones(29), 0) is None


def chained(chance: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """A series in which each value remembers the one before."""
    steps = chance.normal(0, 1, n + 50)
    values = np.zeros(n + 50)
    for t in range(1, n + 50):
        values[t] = rho * values[t - 1] + steps[t]
    return values[50:]


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_the_block_length_is_near_the_one_that_theory_gives(rho: float) -> None:
    chance = np.random.default_rng(5)
    n = 4_000
    theory = (2 * rho / (1 - rho**2)) ** (2 / 3) * n ** (1 / 3)  # Σ|k|ρ^|k| = 2ρ/(1-ρ)², Σρ^|k| = (1+ρ)/(1-ρ)
    assert np.median([block_length(chained(chance, n, rho)) for _ in range(15)]) == pytest.approx(theory, rel=0.25)
    assert np.median([block_length(chance.normal(0, 1, n)) for _ in range(15)]) < theory / 2
    assert block_length(np.ones(100)) == 1.0


def test_later_correlation__counts_in_the_block_length() -> None:
    chance = np.random.default_rng(13)
    n = 4_000
    steps = [chance.normal(0, 1, n + 4) for _ in range(15)]
    # R(0) = 2 and R(4) = 1 alone: Σ|k|R = 8, ΣR = 4.
    assert np.median([block_length(step[4:] + step[:-4]) for step in steps]) == pytest.approx(
        (2 * 8**2 / (2 * 4**2) * n) ** (1 / 3), rel=0.25
    )


def test_resampled_means_spread_as_the_closed_form_says() -> None:
    # Politis & Romano 1994, lemma 1: var = (R(0) + 2 Σ b(i) R(i)) / n, b(i) = (1 - i/n)(1-p)^i + (i/n)(1-p)^(n-i).
    values = chained(np.random.default_rng(6), 120, 0.5)
    block = 6.0
    n = len(values)
    p = 1 / block
    centred = values - values.mean()
    lag = [float(centred[: n - i] @ centred[i:]) / n for i in range(n)]
    shares_kept = [(1 - i / n) * (1 - p) ** i + i / n * (1 - p) ** (n - i) for i in range(n)]
    exact = (lag[0] + 2 * sum(b * r for b, r in zip(shares_kept[1:], lag[1:], strict=True))) / n
    means = resampled_means(values, block, 40_000, 7)
    assert means.var() == pytest.approx(exact, rel=0.03)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * sqrt(exact / 40_000))


def test_block_lengths_are_near_those_of_arch() -> None:
    from arch.bootstrap import optimal_block_length  # slow to import

    chance = np.random.default_rng(14)
    series = [chained(chance, n, rho) for n in (250, 1_000, 3_000) for rho in (0.3, 0.6, 0.9) for _ in range(5)]
    ratios = [block_length(value) / float(optimal_block_length(value)["stationary"].iloc[0]) for value in series]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.05)
    assert np.mean([0.7 < ratio < 1.4 for ratio in ratios]) > 0.9


def test_resampled_means_are_distributed_as_those_of_arch() -> None:
    from arch.bootstrap import StationaryBootstrap  # slow to import

    values = chained(np.random.default_rng(3), 500, 0.6)
    ends = [0.01, 0.025, 0.5, 0.975, 0.99]
    peer = StationaryBootstrap(12, values, seed=2).apply(np.mean, 10_000)[:, 0]
    own = resampled_means(values, 12.0, 10_000, 1)
    assert own.std() == pytest.approx(peer.std(), rel=0.03)
    assert np.quantile(own, ends) == pytest.approx(np.quantile(peer, ends), abs=0.08 * peer.std())


@pytest.mark.slow
def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(8)
    for n, rho, least in ((250, 0.3, 0.92), (90, 0.0, 0.92), (90, 0.3, 0.90)):  # 95 % by name: short and dependent series lose some
        confidence_intervals = [bootstrap_interval(chained(chance, n, rho), seed, resample_count=200) for seed in range(150)]
        assert least <= np.mean([interval.low <= 0.0 <= interval.high for interval in confidence_intervals if interval]) < 1.0
        assert np.mean([interval.low > 0.0 for interval in confidence_intervals if interval]) <= 0.05  # an edge that is none


def over_hold(chance: np.random.Generator, days: int, runs: int) -> np.ndarray:
    """Log returns of 40, 30 and 30 % brought back every day, less those of holding them, over walks of two prices that go nowhere."""
    shares = np.array([0.4, 0.3, 0.3])
    drift = -(0.04**2) / 2
    grown = np.concatenate([np.exp(chance.normal(drift, 0.04, (runs, days, 2))), np.ones((runs, days, 1))], axis=2)
    log_growth = np.log(np.cumprod(grown, axis=1) @ shares)
    return np.log(grown @ shares) - np.diff(log_growth, axis=1, prepend=0.0)


def test_lower_end_over_hold__exceeds_the_truth_as_documented() -> None:
    # Without drift and costs neither is ahead, to a tenth of a percent a year.
    confidence_intervals = [
        bootstrap_interval(sample, seed, resample_count=200) for seed, sample in enumerate(over_hold(np.random.default_rng(11), 120, 200))
    ]
    assert 0.03 <= np.mean([interval.low > 0.0 for interval in confidence_intervals if interval]) <= 0.10
    assert 0.88 <= np.mean([interval.low <= 0.0 <= interval.high for interval in confidence_intervals if interval]) <= 0.97


def test_an_interval_is_that_of_the_resampled_means_and_wider() -> None:
    from scipy.stats import norm  # slow to import
    from scipy.stats import t as student

    values = chained(np.random.default_rng(9), 120, 0.4)
    confidence_interval = bootstrap_interval(values, 3)
    assert confidence_interval.mean_block_periods == min(2 * block_length(values), 20.0)
    plain = np.quantile(resampled_means(values, confidence_interval.mean_block_periods, 4_000, 3), [0.025, 0.975])
    wider = (
        sqrt(120 / (120 - confidence_interval.mean_block_periods))
        * student.ppf(0.975, 120 / confidence_interval.mean_block_periods - 1)
        / norm.ppf(0.975)
    )
    assert wider > 1
    assert [confidence_interval.low, confidence_interval.high] == pytest.approx(
        [values.mean() + wider * (end - values.mean()) for end in plain]
    )
    assert confidence_interval == bootstrap_interval(values, 3)
    yearly = confidence_interval.scaled(365)
    assert (yearly.low, yearly.mean, yearly.period_count) == (confidence_interval.low * 365, confidence_interval.mean * 365, 120)
