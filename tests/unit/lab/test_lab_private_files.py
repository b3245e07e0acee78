"""What a lab host hides of the machine, and that it is only ever set up as a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_lab import host_init, private_files


def test_the_place_that_pyswarm_itself_is_in_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files.sys, "prefix", str(tmp_path / "checkout" / ".venv"))
    assert private_files._holds_us(tmp_path)
    assert not private_files._holds_us(tmp_path / "elsewhere")


def test_a_process_that_is_not_the_first_of_a_host_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would mount its own /proc, /run and /sys over those of the machine."""
    monkeypatch.setattr(host_init, "_set_up", lambda *_: pytest.fail("it was set up"))
    assert host_init.main([str(tmp_path), "n1", str(tmp_path), str(tmp_path), "true"]) == 1
    assert "first process" in capsys.readouterr().out
