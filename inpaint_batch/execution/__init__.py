"""Rows in, restored files out: workers, batches, the local executor, the ledger.

It moves work; it does not know flags, colours of masks, or what an engine is made of.
"""
