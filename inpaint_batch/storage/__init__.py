"""Paths, atomic writes, and the rule that nothing is ever written outside the output folder."""
