"""`--flag=true` and `--flag=false`, as docker takes them, where click knows `--flag` and `--no-flag`.

Rewrites the command line before click reads it. What follows a first argument that ends the flags is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class DockerCommand(click.Command):
    """A command whose boolean flags take a value too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Docker's words, then click's."""
        return super().parse_args(ctx, list(self._rewritten(args, stops=not ctx.allow_interspersed_args)))

    def _rewritten(self, args: list[str], *, stops: bool) -> Iterator[str]:
        options = {name: item for item in self.params if isinstance(item, click.Option) for name in item.opts}
        waiting = iter(args)
        for word in waiting:
            name, equals, value = word.partition("=")
            option = options.get(name)
            if word == "--" or (stops and not word.startswith("-")):
                yield word
                break
            if option is not None and equals and option.is_flag:
                yield from _spelled(option, name, value)
                continue
            yield word
            if option is not None and not equals and not option.is_flag:
                yield from _next(waiting)  # its value, whatever that looks like
        yield from waiting


def _next(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        yield word
        return


def _spelled(option: click.Option, name: str, value: str) -> Iterator[str]:
    if value in _TRUE:
        yield name
    elif value not in _FALSE:
        raise click.UsageError(f'invalid argument "{value}" for "{name}" flag: write true or false')
    else:
        yield from (other for other in option.secondary_opts[:1] if other.startswith("--"))
