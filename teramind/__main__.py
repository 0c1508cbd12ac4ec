"""The command `teramind`: a subcommand per module of `teramind.commands`."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from teramind import commands
from teramind.errors import UserError
from teramind.run.job import describe


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    whole = argparse.ArgumentParser(
        prog="teramind", description="What is done beside the workflow."
    )
    choices = whole.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        help_line = (module.__doc__ or "").splitlines()[0]
        one = choices.add_parser(found.name, help=help_line, description=help_line)
        module.add_arguments(one)
        one.set_defaults(run=module.run)
    return whole


def main(words: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        Exit status: 0, or 1 after one line per mistake of the user's, or on a file that cannot be
        read or written; without a line where nobody reads what is printed any more.
    """
    arguments = parser().parse_args(words)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except UserError as error:
        lines = str(error).splitlines()
    except BrokenPipeError:
        lines = []
        _drop_output()
    except OSError as error:
        _drop_output()
        lines = [describe(error) or f"{error.filename or 'writing'}: {error.strerror or error}"]
    else:
        return 0
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return 1


def _drop_output() -> None:
    """What standard output did not take Python would write again, and complain of, at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
