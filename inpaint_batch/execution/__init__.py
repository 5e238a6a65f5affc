"""Rows in, restored files out: the steps of a row, batches of the tiles of many, the ledger, and who does the work:
threads of this process, other processes, or the actors of a Ray cluster.

It may import every station on the way of a row. It moves work; it does not know flags, colours of masks, or what an
engine is made of. Ray is imported only where a run wants it.
"""
