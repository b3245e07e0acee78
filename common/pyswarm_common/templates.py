"""Go-style templates, as far as docker's users need them: `{{.ID}}`, `{{json .Spec}}`, `{{range .Ports}}…{{end}}`.

Pure and safe: a template reads the value it is given, by the functions listed here and those that its user gives with
it, nothing else; no attribute of a Python object is ever reached. Templates are parsed in full before the first is
evaluated. For what people ask to see (`--format`), and for what is filled in for each task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pyswarm_common.errors import InvalidArgument

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r'\s*(?:("(?:[^"\\]|\\.)*"|`[^`]*`)|(-?\d+)|(\$?(?:\.[A-Za-z_][\w-]*)+|\$|\.)|([A-Za-z]\w*)|([()|]))'
)
_MAX_LENGTH = 10_000
_MAX_DEPTH = 20

Functions = Mapping[str, Callable[..., Any]]


class TemplateError(InvalidArgument):
    """The template cannot be read, or does not fit the value."""

    def __init__(self, message: str) -> None:
        super().__init__(f"template parsing error: {message}")


# ---------------------------------------------------------------- tree


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Print:
    pipeline: _Pipeline


@dataclass(slots=True)
class _Block:
    """`if`, `range` or `with`: a body, and what comes when the value is empty."""

    kind: str
    pipeline: _Pipeline
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)
    in_else: bool = False


@dataclass(frozen=True, slots=True)
class _Field:
    path: tuple[str, ...]
    from_root: bool


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Any


_Node = _Text | _Print | _Block


@dataclass(frozen=True, slots=True)
class _Call:
    """A function with arguments, or (without a name) a single operand."""

    function: str
    operands: tuple[Any, ...]
    apply: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class _Pipeline:
    calls: tuple[_Call, ...]


class Template:
    """A template, ready to be used on many values."""

    def __init__(
        self,
        text: str,
        functions: Functions = MappingProxyType({}),
        *,
        max_length: int = _MAX_LENGTH,
        is_typed: bool = True,
    ) -> None:
        """`functions` come on top of our own. `is_typed`: on a command line, where `\\t` and `\\n` are meant."""
        if len(text) > max_length:
            raise TemplateError(f"longer than {max_length} characters")
        self._nodes = _parse(_unescape(text) if is_typed else text, {**_FUNCTIONS, **functions})

    def render(self, value: Any) -> str:
        """The text for one value (mappings, sequences, strings, numbers, booleans)."""
        out: list[str] = []
        _render(self._nodes, value, value, out)
        return "".join(out)

    def fields(self) -> list[str]:
        """The top-level fields that are printed, in order: the headings of a table."""
        found = []
        for node in self._nodes:
            if isinstance(node, _Print):
                operands = [operand for call in node.pipeline.calls for operand in call.operands]
                found += [operand.path[0] for operand in operands if isinstance(operand, _Field) and operand.path]
        return found


def _unescape(text: str) -> str:
    """`\\t` and `\\n` as typed in a shell's single quotes."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


# ---------------------------------------------------------------- parser


def _parse(text: str, functions: Functions) -> list[_Node]:
    root: list[_Node] = []
    stack: list[_Block] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        _add_text(_target(root, stack), text[position : match.start()], trim, bool(match.group(1)))
        position, trim = match.end(), bool(match.group(3))
        _action(match.group(2).strip(), root, stack, functions)
    rest = text[position:]
    if "{{" in rest:
        raise TemplateError('"{{" is never closed')
    if stack:
        raise TemplateError(f'"{stack[-1].kind}" has no "end"')
    _add_text(root, rest, trim, False)
    return root


def _target(root: list[_Node], stack: list[_Block]) -> list[_Node]:
    if not stack:
        return root
    return stack[-1].otherwise if stack[-1].in_else else stack[-1].body


def _add_text(target: list[_Node], text: str, trim_left: bool, trim_right: bool) -> None:
    text = text.lstrip() if trim_left else text
    text = text.rstrip() if trim_right else text
    if text:
        target.append(_Text(text))


def _action(source: str, root: list[_Node], stack: list[_Block], functions: Functions) -> None:
    keyword, _, rest = source.partition(" ")
    if keyword in ("if", "range", "with"):
        if len(stack) >= _MAX_DEPTH:
            raise TemplateError(f"blocks are nested deeper than {_MAX_DEPTH}")
        block = _Block(keyword, _pipeline(rest, functions))
        _target(root, stack).append(block)
        stack.append(block)
    elif keyword == "else" and not rest:
        if not stack or stack[-1].in_else:
            raise TemplateError('unexpected "else"')
        stack[-1].in_else = True
    elif keyword == "end" and not rest:
        if not stack:
            raise TemplateError('unexpected "end"')
        stack.pop()
    elif not source.startswith("/*"):
        _target(root, stack).append(_Print(_pipeline(source, functions)))


def _pipeline(source: str, functions: Functions) -> _Pipeline:
    tokens = _tokens(source)
    pipeline, rest = _read_pipeline(tokens, 0, functions)
    if rest != len(tokens):
        raise TemplateError(f'unexpected ")" in "{source}"')
    return pipeline


def _tokens(source: str) -> list[Any]:
    """Operands as they are, names as `str`, and the three signs."""
    out: list[Any] = []
    position = 0
    while position < len(source.rstrip()):
        match = _TOKEN.match(source, position)
        if match is None:
            raise TemplateError(f'cannot read "{source[position:].strip()}"')
        position = match.end()
        text, number, path, name, sign = match.groups()
        if text is not None:
            out.append(_Literal(text[1:-1] if text[0] == "`" else _string(text)))
        elif number is not None:
            out.append(_Literal(int(number)))
        elif path is not None:
            out.append(_Field(tuple(part for part in path.lstrip("$").split(".") if part), path.startswith("$")))
        else:
            out.append(name or sign)
    return out


def _string(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        raise TemplateError(f"cannot read the string {text}") from None


def _read_pipeline(tokens: list[Any], position: int, functions: Functions) -> tuple[_Pipeline, int]:
    calls = []
    while True:
        call, position = _read_call(tokens, position, functions)
        calls.append(call)
        if position >= len(tokens) or tokens[position] != "|":
            return _Pipeline(tuple(calls)), position
        position += 1


def _read_call(tokens: list[Any], position: int, functions: Functions) -> tuple[_Call, int]:
    function = ""
    if position < len(tokens) and isinstance(tokens[position], str) and tokens[position] not in "()|":
        function = tokens[position]
        if function not in functions:
            raise TemplateError(f'function "{function}" not defined')
        position += 1
    operands: list[Any] = []
    while position < len(tokens) and tokens[position] not in ("|", ")"):
        if tokens[position] == "(":
            inner, position = _read_pipeline(tokens, position + 1, functions)
            if position >= len(tokens) or tokens[position] != ")":
                raise TemplateError('"(" is never closed')
            operands.append(inner)
        elif isinstance(tokens[position], str):
            raise TemplateError(f'unexpected "{tokens[position]}"')
        else:
            operands.append(tokens[position])
        position += 1
    if not function and len(operands) != 1:
        raise TemplateError("missing value for command" if not operands else "can't give argument to non-function")
    return _Call(function, tuple(operands), functions.get(function)), position


# ---------------------------------------------------------------- evaluation


def _render(nodes: Sequence[_Node], value: Any, root: Any, out: list[str]) -> None:
    for node in nodes:
        match node:
            case _Text(text):
                out.append(text)
            case _Print(pipeline):
                out.append(_printed(_evaluate(pipeline, value, root)))
            case _Block():
                _render_block(node, value, root, out)


def _render_block(block: _Block, value: Any, root: Any, out: list[str]) -> None:
    chosen = _evaluate(block.pipeline, value, root)
    if not chosen:
        _render(block.otherwise, value, root, out)
    elif block.kind == "range":
        if not isinstance(chosen, (Mapping, list, tuple)):
            raise TemplateError(f"range can't iterate over {_printed(chosen)}")
        for item in chosen.values() if isinstance(chosen, Mapping) else chosen:
            _render(block.body, item, root, out)
    else:
        _render(block.body, chosen if block.kind == "with" else value, root, out)


def _evaluate(pipeline: _Pipeline, value: Any, root: Any) -> Any:
    result: Any = None
    for position, call in enumerate(pipeline.calls):
        arguments = [_operand(operand, value, root) for operand in call.operands]
        if position:
            arguments.append(result)
        result = _apply(call, arguments) if call.function or position else arguments[0]
    return result


def _apply(call: _Call, arguments: list[Any]) -> Any:
    if call.apply is None:
        raise TemplateError("can't pipe into a value")
    try:
        return call.apply(*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        raise TemplateError(f'wrong arguments for "{call.function}"') from None


def _operand(operand: Any, value: Any, root: Any) -> Any:
    if isinstance(operand, _Literal):
        return operand.value
    if isinstance(operand, _Pipeline):
        return _evaluate(operand, value, root)
    found = root if operand.from_root else value
    for name in operand.path:
        found = _member(found, name)
    return found


def _member(value: Any, name: str) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if value is None:
        return None
    known = ", ".join(f".{key}" for key in value) if isinstance(value, Mapping) else "nothing"
    raise TemplateError(f'can\'t evaluate field "{name}": there is {known or "nothing"}')


def _printed(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_printed(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_printed(item) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


_FUNCTIONS: Functions = {
    "json": _json,
    "len": len,
    "index": _index,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda items, separator: str(separator).join(_printed(item) for item in items),
    "split": lambda text, separator: str(text).split(str(separator)),
    "println": lambda *items: " ".join(_printed(item) for item in items) + "\n",
    "print": lambda *items: "".join(_printed(item) for item in items),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "truncate": lambda text, length: str(text)[:length],
}
