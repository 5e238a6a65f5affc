"""The composition root: manifest, preflight, executor, ledger and report put together.

It knows every station and none of their insides. It must not parse flags or print.
"""
