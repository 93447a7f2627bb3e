"""A command of `gato` in this process, for tests."""

from __future__ import annotations

import pytest

from cluster.cli.main import main


def gato(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command."""
    monkeypatch.setattr("sys.argv", ["gato", *words])
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    return status, out, err
