"""The command line: one file per command.

The only place that parses flags, prints, and turns exceptions into exit codes. It may import everything below
it, but heavy modules only inside the command that needs them, so that `--help` stays quick.
"""
