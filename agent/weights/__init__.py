"""Target weights from data: returns, covariances, allocators; floats leave as basis points through
one function (units.bounded_bps).
"""
