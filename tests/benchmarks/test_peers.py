"""What the command that measures against peers says where it cannot."""

from __future__ import annotations

import sys

import pytest

from benchmarks.peers import __main__ as peers


def test_a_peer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were missing
    monkeypatch.delitem(sys.modules, "benchmarks.peers.hugging_face", raising=False)
    monkeypatch.setattr(sys, "argv", ["peers", "acting"])
    with pytest.raises(SystemExit):
        peers.main()
    said = capsys.readouterr().err
    assert "acting needs transformers; pip install -e '.[peers]'" in said


def test_unknown_parts_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "sampling"])
    with pytest.raises(SystemExit):
        peers.main()
    said = capsys.readouterr().err
    assert "unknown: sampling; there are acting, training, environments, weights" in said
