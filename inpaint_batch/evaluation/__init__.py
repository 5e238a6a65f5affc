"""Metrics and suites: how good a fill is, measured against the truth.

Arrays in, numbers out. It must not know how the fill was made.
"""
