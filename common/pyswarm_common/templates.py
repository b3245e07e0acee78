"""Go-style templates, as far as docker's users need them: `{{.ID}}`, `{{json .Spec}}`, `{{range .Ports}}…{{end}}`.

Pure and safe: a template reads the value it is given, by the functions listed here and those that its user gives with
it, nothing else; no attribute of a Python object is ever reached. Templates are parsed in full before the first is
evaluated, and one rendering is bounded (`template_functions.Budget`). For what people ask to see (`--format`), and for
what is filled in for each task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pyswarm_common.template_functions import FUNCTIONS, Budget, Functions, TemplateError, printed

_TOKEN = re.compile(
    r'\s*(?:("(?:[^"\\]|\\.)*"|`[^`]*`)|(-?\d+)|(\$?(?:\.[A-Za-z_][\w-]*)+|\$|\.)|([A-Za-z]\w*)|([()|]))'
)
_MAX_LENGTH = 10_000
_MAX_DEPTH = 20
_MAX_DIGITS = 18

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
        self._nodes = _parse(_unescape(text) if is_typed else text, {**FUNCTIONS, **functions})

    def render(self, value: Any) -> str:
        """The text for one value (mappings, sequences, strings, numbers, booleans)."""
        run = _Run(value)
        run.render(self._nodes, value)
        return "".join(run.out)

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
    trim = False
    for before, action in _cut(text):
        starts_trimmed, ends_trimmed, source = _trimming(action)
        _add_text(_target(root, stack), before, trim, starts_trimmed)
        trim = ends_trimmed
        if source is not None:
            _action(source.strip(), root, stack, functions)
    if stack:
        raise TemplateError(f'"{stack[-1].kind}" has no "end"')
    return root


def _cut(text: str) -> Iterator[tuple[str, str | None]]:
    """Text and the action after it, in turn; None after the last. Every character is looked at once."""
    position = 0
    while (start := text.find("{{", position)) >= 0:
        end = text.find("}}", start + 2)
        if end < 0:
            raise TemplateError('"{{" is never closed')
        yield text[position:start], text[start + 2 : end]
        position = end + 2
    yield text[position:], None


def _trimming(action: str | None) -> tuple[bool, bool, str | None]:
    """Whether white space goes before and after it (`{{- … -}}`), and the action itself."""
    if action is None:
        return False, False, None
    before = action[:1] == "-" and action[1:2].isspace()
    source = action[2:] if before else action
    after = source[-1:] == "-" and source[-2:-1].isspace()
    return before, after, source[:-2] if after else source


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
            if len(number) > _MAX_DIGITS:
                raise TemplateError(f"a number has more than {_MAX_DIGITS} digits")
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


def _read_pipeline(tokens: list[Any], position: int, functions: Functions, depth: int = 0) -> tuple[_Pipeline, int]:
    if depth > _MAX_DEPTH:
        raise TemplateError(f"parentheses are nested deeper than {_MAX_DEPTH}")
    calls = []
    while True:
        call, position = _read_call(tokens, position, functions, depth)
        calls.append(call)
        if position >= len(tokens) or tokens[position] != "|":
            return _Pipeline(tuple(calls)), position
        position += 1


def _read_call(tokens: list[Any], position: int, functions: Functions, depth: int) -> tuple[_Call, int]:
    function = ""
    if position < len(tokens) and isinstance(tokens[position], str) and tokens[position] not in "()|":
        function = tokens[position]
        if function not in functions:
            raise TemplateError(f'function "{function}" not defined')
        position += 1
    operands: list[Any] = []
    while position < len(tokens) and tokens[position] not in ("|", ")"):
        if tokens[position] == "(":
            inner, position = _read_pipeline(tokens, position + 1, functions, depth + 1)
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


class _Run:
    """One rendering: what was printed so far, and what it may still cost."""

    def __init__(self, root: Any) -> None:
        self.out: list[str] = []
        self._root = root
        self._budget = Budget()

    def render(self, nodes: Sequence[_Node], value: Any) -> None:
        for node in nodes:
            self._budget.step()
            match node:
                case _Text(text):
                    self._print(text)
                case _Print(pipeline):
                    self._print(printed(self._evaluate(pipeline, value)))
                case _Block():
                    self._render_block(node, value)

    def _print(self, text: str) -> None:
        self._budget.spend(text)
        self.out.append(text)

    def _render_block(self, block: _Block, value: Any) -> None:
        chosen = self._evaluate(block.pipeline, value)
        if not chosen:
            self.render(block.otherwise, value)
        elif block.kind == "range":
            self._repeat(block, chosen)
        else:
            self.render(block.body, chosen if block.kind == "with" else value)

    def _repeat(self, block: _Block, chosen: Any) -> None:
        if not isinstance(chosen, (Mapping, list, tuple)):
            raise TemplateError(f"range can't iterate over {printed(chosen)}")
        for item in chosen.values() if isinstance(chosen, Mapping) else chosen:
            self._budget.step()
            self.render(block.body, item)

    def _evaluate(self, pipeline: _Pipeline, value: Any) -> Any:
        result: Any = None
        for position, call in enumerate(pipeline.calls):
            arguments = [self._operand(operand, value) for operand in call.operands]
            if position:
                arguments.append(result)
            result = self._apply(call, arguments) if call.function or position else arguments[0]
        return result

    def _apply(self, call: _Call, arguments: list[Any]) -> Any:
        if call.apply is None:
            raise TemplateError("can't pipe into a value")
        self._budget.step()
        self._budget.spend(arguments)
        try:
            result = call.apply(*arguments)
        except TemplateError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            raise TemplateError(f'wrong arguments for "{call.function}"') from None
        self._budget.spend(result)
        return result

    def _operand(self, operand: Any, value: Any) -> Any:
        if isinstance(operand, _Literal):
            return operand.value
        if isinstance(operand, _Pipeline):
            return self._evaluate(operand, value)
        found = self._root if operand.from_root else value
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
