"""What the user is told when something goes wrong: one line on standard error, and an exit code.

Never a traceback, unless PYSWARM_DEBUG asks for it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable

import click

from pyswarm_common.errors import PyswarmError
from pyswarm_common.secrecy import masked

WRONG_FLAG = 125
_NOT_SO = re.compile(r"""(?:(['"])(?P<quoted>.*?)\1|(?P<number>[-+.\w]+)) is (?P<reason>not .+)""", re.DOTALL)
_INTEGER = re.compile("a valid integer( range)?")
_OF_OUTPUT = frozenset({errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EIO})


class FromDaemon(Exception):
    """A refusal that came from the daemon, as opposed to one of our own."""

    def __init__(self, refusal: PyswarmError, status: str = "") -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        # The gRPC status, for those that have no class of their own (OUT_OF_RANGE).
        self.status = status


class WrongValue(click.BadParameter):
    """A flag's value that one of our own parsers does not take."""

    def __init__(self, value: str, reason: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        super().__init__(reason, ctx, param)
        self.value = value


class Silent(Exception):
    """Everything was said already; only the exit code is left."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__()
        self.exit_code = exit_code


def report(error: Exception) -> int:
    """Say it, and return the exit code."""
    if isinstance(error, Silent):
        return error.exit_code
    if os.environ.get("PYSWARM_DEBUG"):
        click.echo(masked("".join(traceback.format_exception(error))), nl=False, err=True)
    text, code = explain(error)
    click.echo(text, err=True)
    return code


def explain(error: Exception) -> tuple[str, int]:
    """The line and the exit code for a failure."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), 1
        case click.UsageError():
            return _usage(error)
        case click.ClickException():
            return one_line(error.format_message()), error.exit_code
        case FromDaemon():
            return f"Error response from daemon: {one_line(str(error))}", 1
        case PyswarmError():
            return one_line(str(error)), 1
        case OSError() if error.filename is not None:
            return one_line(f"{error.strerror}: {error.filename}"), 1
        case OSError() if error.errno in _OF_OUTPUT:
            return f"cannot write the output: {error.strerror}", 1
    what = f"{type(error).__name__}: {one_line(str(error))}"
    return f"pyswarm: internal error ({what}). PYSWARM_DEBUG=1 shows where; please report it.", 1


def one_line(text: str) -> str:
    """Without line feeds and what else could steer a terminal, and without the secrets that it may quote."""
    joined = " ".join(masked(text).split())
    return "".join(character for character in joined if character.isprintable())


def _usage(error: click.UsageError) -> tuple[str, int]:
    command = error.ctx.command_path if error.ctx is not None else "pyswarm"
    message, code = _usage_message(error, command)
    return f"{one_line(message).rstrip('.')}. See '{command} --help'.", code


def _usage_message(error: click.UsageError, command: str) -> tuple[str, int]:
    match error:
        case click.NoSuchOption():
            hint = f" (did you mean {error.possibilities[0]}?)" if error.possibilities else ""
            return f"unknown flag: {error.option_name}{hint}", WRONG_FLAG
        case click.BadOptionUsage():
            return f"flag needs an argument: {error.option_name}", WRONG_FLAG
        case click.MissingParameter(param=click.Argument()):
            return f'"{command}" requires at least 1 argument', 1
        case click.MissingParameter(param=click.Option() as option):
            return f"required flag: {max(option.opts, key=len)}", WRONG_FLAG
        case click.BadParameter(param=click.Option() as option):
            return _wrong_value(option, error), WRONG_FLAG
        case click.BadParameter(param=click.Argument() as argument):
            return f"invalid argument for {argument.human_readable_name}: {_in_words(error.message)}", 1
    if error.message.startswith("invalid argument "):
        return error.message, WRONG_FLAG
    if error.message.startswith("No such command"):
        return f"unknown command: {error.message.split(chr(39))[1]}", 1
    if "unexpected extra argument" in error.message:
        return f'"{command}" was given too many arguments', 1
    return error.message, 1


def _wrong_value(option: click.Option, error: click.BadParameter) -> str:
    """As docker says it. click's own types begin with the value, quoted, and go on with what it is not."""
    flag = ", ".join(sorted(option.opts, key=len))
    found = _NOT_SO.match(error.message)
    if isinstance(error, WrongValue):
        value, reason = error.value, error.message.removeprefix(f'"{error.value}" is ')
    elif found is not None:
        value, reason = found["quoted"] if found["quoted"] is not None else found["number"], found["reason"]
    else:
        return f'invalid argument for "{flag}" flag: {error.message}'
    return f'invalid argument "{value}" for "{flag}" flag: {_in_words(reason)}'


def _in_words(reason: str) -> str:
    """click's names of its number types are no English."""
    return _INTEGER.sub("a whole number", reason)


def each(names: Iterable[str], act: Callable[[str], None]) -> None:
    """Do something for every name, say what fails, go on, and fail in the end when any did."""
    failed = False
    for name in names:
        try:
            act(name)
        except (FromDaemon, PyswarmError) as error:
            failed = True
            report(error)
    sys.stdout.flush()
    if failed:
        raise Silent
