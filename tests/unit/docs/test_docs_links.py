"""What the pages point to is there: links between them, and the files that they name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*/[\w-]+\.(?:py|md|proto|sh|toml|service)(?=::|$)")
SHORTENED = re.compile(r"[\w.-]+/…/[\w./-]+")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@cache
def files() -> frozenset[str]:
    """Every file of the repository, by its path from each folder above it."""
    found = [
        path.relative_to(ROOT).parts
        for path in ROOT.rglob("*.*")
        if not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts)
    ]
    return frozenset("/".join(parts[start:]) for parts in found for start in range(len(parts)))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        to = (page.parent / target).resolve() if target else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    words = (word for code in CODE.findall(FENCED.sub("", page.read_text())) for word in code.split())
    named = [found.group() for word in words if (found := FILE.match(word))]
    assert [name for name in named if name.removeprefix("./") not in files()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shortened_paths_lead_somewhere(page: Path) -> None:
    """`manager/…/raft/core` is a file or a folder somewhere below manager/."""
    words = [word for code in CODE.findall(FENCED.sub("", page.read_text())) for word in code.split()]
    shortened = [word.rstrip("/").replace("…", "**") for word in words if SHORTENED.fullmatch(word)]
    assert [pattern for pattern in shortened if not any(ROOT.glob(pattern))] == []


def test_every_page_is_found_from_the_architecture() -> None:
    linked = {target for target, _ in LINK.findall((ROOT / "docs" / "architecture.md").read_text())}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"architecture.md"}
    assert pages - linked == set()


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    listed = [target for target, _ in LINK.findall((folder / "README.md").read_text())]
    assert listed == records
