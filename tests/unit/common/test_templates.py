"""Go-style templates, tables and words."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.output.rows import Columns, show, show_objects
from pyswarm_cli.output.words import ago, human_duration, human_size, truncate
from pyswarm_common.template_functions import TemplateError
from pyswarm_common.templates import Template

VALUE = {
    "ID": "abc",
    "N": 3,
    "Empty": "",
    "On": True,
    "Spec": {"Name": "web", "Labels": {"zone": "a", "b": "c"}},
    "Ports": [{"P": 80}, {"P": 443}],
    "Words": ["x", "y"],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.ID}}\\t{{.Spec.Name}}", "abc\tweb"),
        ("{{ .ID }}", "abc"),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{json .Spec}}", '{"Name":"web","Labels":{"zone":"a","b":"c"}}'),
        ("{{.Spec.Labels | json}}", '{"zone":"a","b":"c"}'),
        ("{{json .ID}}", '"abc"'),
        ("{{range .Ports}}{{.P}} {{end}}", "80 443 "),
        ("{{range .Words}}{{.}}{{$.ID}}{{end}}", "xabcyabc"),
        ("{{if .Empty}}yes{{else}}no{{end}}", "no"),
        ("{{if eq .ID `abc`}}yes{{end}}", "yes"),
        ("{{if and .On (ne .N 4)}}yes{{end}}", "yes"),
        ("{{with .Spec}}{{.Name}}{{end}}", "web"),
        ('{{index .Spec.Labels "zone"}}', "a"),
        ("{{index .Words 1}}", "y"),
        ('{{join .Words ","}}', "x,y"),
        ("{{upper .ID}} {{len .Ports}}", "ABC 2"),
        ("{{.Spec.Labels}} {{.Words}} {{.On}}", "map[b:c zone:a] [x y] true"),
        ("{{.Spec.Name | upper | lower}}", "web"),
        ("{{/* nothing */}}", ""),
        ('{{"a\\"b"}}', 'a"b'),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert Template(text).render(VALUE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{.ID",
        "{{if .ID}}",
        "{{end}}",
        "{{else}}",
        "{{foo .ID}}",
        "{{.ID .N}}",
        "{{}}",
        "{{(.ID}}",
        "{{.ID)}}",
        "{{%}}",
        pytest.param("{{" + 5000 * "9" + "}}", id="digits"),
        pytest.param("{{" + 3000 * "(" + ".ID" + 3000 * ")" + "}}", id="parentheses"),
        pytest.param(4000 * "{{", id="never-closed"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused_before_it_is_used(text: str) -> None:
    with pytest.raises(TemplateError, match="template parsing error"):
        Template(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{.Nope}}",
        "{{.ID.__class__}}",
        "{{.__class__}}",
        "{{index .Words 9}}",
        "{{len .N}}",
        "{{range .N}}{{end}}",
        "{{upper}}",
    ],
)
def test_a_template_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        Template(text).render(VALUE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(15 * "{{with print . . . . . . . .}}" + "{{len .}}" + 15 * "{{end}}", id="doubling"),
        pytest.param(9 * '{{range split "a a a a a a a a a a" " "}}' + 9 * "{{end}}", id="loops"),
        pytest.param('{{join (split "' + 4000 * "," + '" ",") "' + 9000 * "x" + '"}}', id="join"),
    ],
)
def test_a_template_that_would_cost_too_much_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match="more than"):
        Template(text, max_length=20_000).render("x")


@given(st.text(alphabet='{}.$|()-"` abIDendifrange\\', max_size=40))
def test_any_template_renders_or_is_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(TemplateError):
        Template(text).render(VALUE)


COLUMNS = Columns({"ID": "ID", "Name": "NAME"}, ("ID", "Name"))
ROWS = [{"ID": "1", "Name": "long name"}, {"ID": "22", "Name": "b"}]


@pytest.mark.parametrize(
    ("format_", "quiet", "expected"),
    [
        ("", False, "ID   NAME\n1    long name\n22   b\n"),
        ("", True, "1\n22\n"),
        ("json", False, '{"ID":"1","Name":"long name"}\n{"ID":"22","Name":"b"}\n'),
        ("{{.Name}}", False, "long name\nb\n"),
        ("table {{.Name}}\\t{{.ID}}", False, "NAME        ID\nlong name   1\nb           22\n"),
        ("{{json .}}", True, '{"ID":"1","Name":"long name"}\n{"ID":"22","Name":"b"}\n'),
    ],
)
def test_lists(format_: str, quiet: bool, expected: str) -> None:
    assert show(ROWS, COLUMNS, format_, quiet=quiet) == expected


def test_an_empty_list_still_has_its_headings() -> None:
    assert show([], COLUMNS) == "ID   NAME\n"


def test_inspect_prints_a_list_or_a_template_line_per_object() -> None:
    assert show_objects([{"A": 1}]) == '[\n    {\n        "A": 1\n    }\n]\n'
    assert show_objects([{"A": 1}, {"A": 2}], "{{.A}}") == "1\n2\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


def test_sizes_and_times_in_words() -> None:
    assert human_size(1_240_000) == "1.24MB"
    assert ago(100, 90) == "Less than a second ago"
    assert truncate("abcdef", 4) == "abc…"
