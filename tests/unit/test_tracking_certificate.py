"""Certificates of plans of the tracking rule: small, and never below what other plans reach."""

from __future__ import annotations

import statistics

import pytest

from scripts.tracking_certificate import certificates


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1], ids=["a pool an asset", "up to 16 pools"])
def test_no_other_plan_is_worth_more_than_plan_and_gap(first: int) -> None:
    plan_certificates = list(certificates(range(first, 80, 2)))
    assert len(plan_certificates) > 20
    assert [certificate.missing_bps for certificate in plan_certificates if certificate.missing_bps] == []
    assert statistics.median(certificate.gap_bps for certificate in plan_certificates) < 1e-3
