"""The place that a run is copied to: a folder, or what fsspec knows by its URL."""

from __future__ import annotations

import os
import posixpath
import secrets
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.registry import known_implementations

CHUNK_BYTES = 8 << 20
FORM = "a folder (/mnt/shared/gato) or a URL (s3://BUCKET/gato)"


class PlaceAway(ValueError):
    """The place cannot be read or written now, which may be different in a moment."""


def checked_url(text: str) -> str:
    """`text` as it is kept: a URL, or a folder's whole path.

    Raises:
        ValueError: No driver is installed for it, or it holds a password.
    """
    scheme = urlsplit(text).scheme if "://" in text else ""
    if not scheme:
        return str(Path(text).expanduser().absolute())
    if "@" in urlsplit(text).netloc:
        raise ValueError(
            "the URL of --storage is kept in the run's config and shown; give user and password as"
            f" the driver of {scheme}:// finds them: in its environment or its own files"
        )
    known: dict[str, Any] = known_implementations
    if scheme not in fsspec.available_protocols():
        raise ValueError(f"--storage knows no {scheme}://; give {FORM}")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as problem:
        said = known.get(scheme, {}).get("err", str(problem))
        raise ValueError(
            f"{scheme}:// needs a driver, on every node that may be a home: pip install"
            f" {PACKAGES.get(scheme, scheme)} ({said})"
        ) from problem
    return text


PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs",
    "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "hf": "huggingface_hub",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Files of one run, by their path below `url`/`run_id`.

    place = Place("s3://bucket/gato", run_id)
    place.put("packs/0-17", data)
    if not place.create("home-000002", b"..."):     # somebody else has
        ...
    """

    url: str
    run_id: str

    def put(self, path: str, data: bytes) -> None:
        """Write a file. A reader may see a part of it until this returns."""
        file_system, file = self._at(path)
        with _named(self.url):
            self._make_folder(file_system, file)
            file_system.pipe_file(file, data)

    def put_from(self, path: str, file: Path) -> tuple[int, int]:
        """Write a file of this machine, of any length. Returns its length and CRC.

        Raises:
            OSError: It cannot be read here.
            PlaceAway: It cannot be written there.
        """
        file_system, target = self._at(path)
        with file.open("rb") as source:
            with _named(self.url):
                self._make_folder(file_system, target)
                out = file_system.open(target, "wb")
            num_bytes = crc = 0
            while data := source.read(CHUNK_BYTES):
                with _named(self.url):
                    out.write(data)
                num_bytes, crc = num_bytes + len(data), zlib.crc32(data, crc)
            with _named(self.url):
                out.close()
        return num_bytes, crc

    def get_into(self, path: str, file: Path) -> tuple[int, int]:
        """The inverse of `put_from`."""
        file_system, source = self._at(path)
        with file.open("wb") as out:
            with _named(self.url):
                opened = file_system.open(source, "rb")
            num_bytes = crc = 0
            while True:
                with _named(self.url):
                    data = opened.read(CHUNK_BYTES)
                if not data:
                    break
                out.write(data)
                num_bytes, crc = num_bytes + len(data), zlib.crc32(data, crc)
            with _named(self.url):
                opened.close()
            out.flush()
            os.fsync(out.fileno())
        return num_bytes, crc

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there. False: it is; of two that call this one has True."""
        file_system, file = self._at(path)
        with _named(self.url):
            self._make_folder(file_system, file)
            try:
                if "file" in _protocols(file_system):
                    _link(Path(file), data)
                else:
                    file_system.pipe_file(file, data, mode="create")
            except FileExistsError:
                return False
        return True

    def get(self, path: str) -> bytes:
        """A file. Raises PlaceAway also if there is none: it may have been replaced just now."""
        file_system, file = self._at(path)
        with _named(self.url):
            return bytes(file_system.cat_file(file))

    def names(self, folder: str = "") -> list[str]:
        """The paths of all files below `folder`, sorted; none if there is no such folder."""
        file_system, root = self._at("")
        with _named(self.url):
            file_system.invalidate_cache()
            start = posixpath.join(root, folder) if folder else root
            base = file_system._strip_protocol(root)
            try:
                found = file_system.find(start)
            except FileNotFoundError:
                return []
            return sorted(posixpath.relpath(name, base) for name in found)

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        file_system, file = self._at(path)
        with _named(self.url):
            try:
                file_system.rm_file(file)
            except FileNotFoundError:
                return

    def _at(self, path: str) -> tuple[Any, str]:
        with _named(self.url):
            file_system, root = fsspec.url_to_fs(self.url)
        return file_system, posixpath.join(root, self.run_id, path).rstrip("/")

    def _make_folder(self, file_system: Any, file: str) -> None:
        if "file" in _protocols(file_system):
            root = Path(file_system._strip_protocol(self.url))
            if not root.is_dir():
                # A folder on the home's own disk, where a share is not mounted, is no copy.
                raise FileNotFoundError(
                    "there is no such folder on this machine; make it, or mount the share"
                )
            (root / self.run_id).mkdir(mode=0o700, exist_ok=True)
        file_system.makedirs(posixpath.dirname(file), exist_ok=True)


def _link(file: Path, data: bytes) -> None:
    """Make a file with all of `data` in one step. Raises FileExistsError if it is there."""
    draft = file.parent.with_name(f".draft-{os.getpid()}-{secrets.token_hex(4)}")
    draft.write_bytes(data)
    try:
        os.link(draft, file)
    finally:
        draft.unlink()


def _protocols(file_system: Any) -> tuple[str, ...]:
    known = file_system.protocol
    return (known,) if isinstance(known, str) else tuple(known)


@contextmanager
def _named(url: str) -> Generator[None]:
    """Says of any failure at which place it was: drivers raise errors of many kinds."""
    try:
        yield
    except PlaceAway:
        raise
    except Exception as problem:
        said = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise PlaceAway(f"storage at {url}: {said}") from problem
