"""The command line: one file per command.

The only place that parses flags, prints, and turns exceptions into exit codes. It may import everything below
it, but heavy modules only inside the command that needs them, so that `--help` stays quick.
"""

import sys

if sys.platform == "win32":  # before any module of ours asks for what only other systems have
    print("inpaint-batch: this program does not run on Windows itself; run it in WSL", file=sys.stderr)
    sys.exit(2)
