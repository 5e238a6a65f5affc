"""The program `inpaint-batch`: its commands, and the one place where an exception becomes an exit code."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from inpaint_batch import __version__
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.exits import tell, tell_programs
from inpaint_batch.cli.streams import lasting_streams
from inpaint_batch.errors import INTERRUPTED, ConfigError, StorageError, UsageError, exit_code_of

COMMANDS = {
    "run": "inpaint_batch.cli.run",
    "check": "inpaint_batch.cli.check",
    "mask": "inpaint_batch.cli.mask",
    "verify": "inpaint_batch.cli.verify",
    "status": "inpaint_batch.cli.status",
    "report": "inpaint_batch.cli.report",
    "merge": "inpaint_batch.cli.merge",
    "train": "inpaint_batch.cli.train",
    "compile": "inpaint_batch.cli.compile",
    "engines": "inpaint_batch.cli.engines",
}
"""Command → module, which has an `app` with that one command. It is imported when the command, or the list, is wanted,
so a module must leave heavy imports to the body of its command."""


_WRONG_FLAGS = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""Click's UsageError, which Typer has from Click or from a copy of its own, by its version."""


_ONE_AT_A_TIME = "name one folder of images, one table that lists them, or one image"
_IF_SEVERAL = {
    "mask": _ONE_AT_A_TIME,
    **dict.fromkeys(("run", "check", "verify"), f"{_ONE_AT_A_TIME}; its mask stands behind --masks"),
}
"""For those who name images one after the other (`*.jpg`), or a mask right behind its image."""


class _Commands(TyperGroup):
    """The group of commands; imports them by name."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (the signature is Typer's)
        """All names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(COMMANDS[cmd_name]).app)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Typer would turn Ctrl-C into a code of its own, so it is caught before; what it says itself
        of wrong flags, programs are told here."""
        try:
            return super().invoke(ctx)
        except _WRONG_FLAGS as error:
            command = error.ctx.info_name if error.ctx is not None else None
            if command in _IF_SEVERAL and error.message.startswith("Got unexpected extra argument"):
                error.message += f"; {_IF_SEVERAL[command]}"
            tell_programs(UsageError(error.format_message()))
            raise
        except KeyboardInterrupt as error:
            tell(error)
            raise typer.Exit(INTERRUPTED) from None


app = new_app(
    cls=_Commands,
    name="inpaint-batch",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inpaint-batch {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001  (what it asks for is done before)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Restore images by the hundred thousand: every hole filled, not one other sample changed.

    Exit codes: 0 all rows done; 1 a bug; 2 usage; 3 settings; 4 manifest; 5 missing package; 6 model or engine;
    7 output folder; 8 some rows failed; 9 too many failed; 10 device lost; 75 asked to stop, run again to go on;
    130 interrupted.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":  # as manifests are: the first name with an accent would end a run in the midst of it
        raise ConfigError(f"names of files are in {encoding} here, not in UTF-8; set PYTHONUTF8=1 and run again")


def main() -> None:
    """Entry point of the program: run the command that the arguments name, and leave with its exit code."""
    with lasting_streams() as cut_off:
        code = _exit_code()
        error = cut_off()
        if error is not None:
            lost = StorageError(f"standard output cannot be written: {error.strerror}; what it was to say is lost")
            tell(lost)
            code = code or lost.exit_code
    sys.exit(code)


def _exit_code() -> int:
    try:
        app()  # leaves by SystemExit, with 2 for wrong usage
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException as error:
        tell(error)
        return exit_code_of(error)
    return 0
