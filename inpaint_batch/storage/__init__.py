"""Where files are: paths and URIs, objects of stores, atomic writes, and the rule that nothing is ever written outside
the output folder.

It imports nothing of the package but modules at its root (settings, types, errors), and fsspec only where a store is
spoken to. It must not know what is in a file.
"""
