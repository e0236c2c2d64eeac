"""Sweep: profit beyond a set amount is paid to a cold address on a schedule ([sweep])."""
