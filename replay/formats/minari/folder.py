"""The folder of a Minari data set: given, or found by id under MINARI_DATASETS_PATH, or
downloaded."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PREFIX = "minari:"
REACH_S = 10.0
"""How long to wait for the hub's answer."""


def datasets_root() -> Path:
    """Minari's own folder of data sets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def find_folder(path_or_id: str | Path) -> Path:
    """The folder that holds metadata.json; an id that is not here is downloaded. Raises ValueError
    if that cannot be."""
    name = str(path_or_id)
    given = Path(name).expanduser()
    if not name.startswith(PREFIX) and given.is_dir():
        for folder in (given / "data", given):
            if (folder / "metadata.json").is_file():
                return folder
        raise ValueError(f"{given} is not a Minari data set: it has no data/metadata.json")
    if isinstance(path_or_id, Path):
        raise ValueError(f"no folder {given}")
    dataset_id = name.removeprefix(PREFIX)
    root = datasets_root()
    folder = root / dataset_id / "data"
    if not (folder / "metadata.json").is_file():
        _download(dataset_id, root)
    return folder


def _download(dataset_id: str, root: Path) -> None:
    if find_spec("huggingface_hub") is None:
        raise ValueError(
            f"no data set {dataset_id!r} in {root}; to download it, pip install 'minari[hf]', "
            "or give the folder of a data set, or set MINARI_DATASETS_PATH"
        )
    # the hub's errors are those of its HTTP library, which changed with its versions; it names
    # their base class itself
    http_error: type[Exception] = import_module("huggingface_hub.errors").HTTPError
    try:
        _reach_hub()
        _fetch(dataset_id, again=(root / dataset_id).exists())
    except (OSError, ValueError, ImportError, http_error) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"no data set {dataset_id!r} in {root}, and it cannot be downloaded:"
            f" {reason or type(error).__name__}; try again with a network, or give the folder of a"
            " data set"
        ) from error


def _reach_hub() -> None:
    """Make one request, so that without a network the error takes seconds, not the minute of the
    hub's own retries."""
    if os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
        endpoint = import_module("huggingface_hub.constants").ENDPOINT
        import_module("huggingface_hub.utils").get_session().head(endpoint, timeout=REACH_S)


def _fetch(dataset_id: str, *, again: bool) -> None:
    """`again`: a download that was interrupted left something, and goes on from there."""
    import minari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.download_dataset(dataset_id, force_download=again)
