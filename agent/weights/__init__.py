"""Target weights from data: returns, covariances and allocators. Floats become basis points in one
function (units.bounded_bps).
"""
