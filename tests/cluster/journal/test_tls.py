"""A Redis behind TLS, and with users: it is used as it should be, and what is wrong is said in one
line."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cluster.journal.journal import Journal
from cluster.journal.records import Event
from cluster.journal.redis_client import RedisAway, connect, require_redis
from cluster.journal.redis_server import RedisServer
from cluster.journal.writer import JournalWriter
from tests.cluster.wait import until

x509 = pytest.importorskip("cryptography.x509", reason="makes the certificates")


def certificate(folder: Path, name: str) -> Path:
    """A certificate for 127.0.0.1 that signed itself, with its key in the same file."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


class TlsProxy:
    """Ends TLS in front of a plain server; the server that ships is built without TLS."""

    def __init__(self, certificate: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError), closing(plain):
            plain.settimeout(5.0)
            secret = self._context.wrap_socket(plain, server_side=True)
            with closing(secret), socket.create_connection(self._to) as server:
                # One direction a thread would use the TLS socket from two at once; Redis answers
                # requests one by one, so looking at both in turn is enough.
                secret.settimeout(0.01)
                server.settimeout(0.01)
                while True:
                    for source, sink in ((secret, server), (server, secret)):
                        with suppress(TimeoutError):
                            data = source.recv(1 << 16)
                            if not data:
                                return
                            sink.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "ours")
    certificate(folder, "theirs")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with RedisServer.start(folder / "redis") as server, connect(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "ann", "on", ">s3cret", "~gato:*", "+@all")
        admin.execute_command("ACL", "SETUSER", "eve", "on", ">s3cret", "~other:*", "+@all")
        admin.execute_command("ACL", "SETUSER", "bob", "on", ">s3cret", "~*", "+ping", "+xread")
        yield server


@pytest.fixture(scope="module")
def tls_port(folder: Path, server: RedisServer) -> Iterator[int]:
    with closing(TlsProxy(folder / "ours.pem", server.endpoint.port)) as proxy:
        yield proxy.port


def test_a_journal_is_kept_over_tls_by_a_user_with_a_password(folder: Path, tls_port: int) -> None:
    url = f"rediss://ann:s3cret@127.0.0.1:{tls_port}/0?ssl_ca_certs={folder}/ours.pem"
    require_redis(url)
    with (
        JournalWriter(folder / "journal", "demo", server=url) as writer,
        connect(url) as client,
    ):
        for number in range(300):
            writer.append(Event(kind="n", text=str(number)))
        until(lambda: writer.status().waiting == 0)
        assert len(Journal(client, "demo").read()) == 300
        Journal(client, "demo").post_control("stop")
        assert until(writer.take_control) == [("stop", "")]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "rediss://ann:wr0ng@127.0.0.1:{tls}/0?ssl_ca_certs={ours}",
            r"refuses the password; .*user",
        ),
        ("rediss://nobody:s3cret@127.0.0.1:{tls}/0?ssl_ca_certs={ours}", r"refuses the password"),
        (
            "rediss://ann:s3cret@127.0.0.1:{tls}/0?ssl_ca_certs={theirs}",
            r"certificate that is not trusted .*name the file of the CA .*\?ssl_ca_certs=",
        ),
        ("rediss://ann:s3cret@127.0.0.1:{tls}/0", r"certificate that is not trusted"),
        (
            "rediss://ann:s3cret@127.0.0.1:{tls}/0?ssl_ca_certs=/no/such/file.pem",
            r"ssl_ca_certs does not exist",
        ),
        (
            "rediss://ann:s3cret@127.0.0.1:{tls}/0?ssl_ca_certs={empty}",
            r"ssl_ca_certs holds no certificate",
        ),
        ("redis://ann:s3cret@127.0.0.1:{tls}/0", r"speaks TLS on this port; write rediss://"),
        (
            "rediss://ann:s3cret@127.0.0.1:{plain}/0?ssl_ca_certs={ours}",
            r"does not speak TLS on this port; write redis://",
        ),
        ("rediss://ann:s3cret@127.0.0.1:{tls}/0?ca_file={ours}", r"has an option .* not known"),
        ("redis://eve:s3cret@127.0.0.1:{plain}/0", r"cannot hold a journal .*keys gato:\*"),
        ("redis://bob:s3cret@127.0.0.1:{plain}/0", r"cannot hold a journal .*all commands"),
        ("redis://ann:s3cret@127.0.0.1:{plain}/99", r"cannot hold a journal .*out of range"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_fix(
    folder: Path, server: RedisServer, tls_port: int, url: str, said: str
) -> None:
    empty = folder / "empty.pem"
    empty.touch()
    names = {"ours": folder / "ours.pem", "theirs": folder / "theirs.pem", "empty": empty}
    with pytest.raises(ValueError, match=said) as caught:
        require_redis(url.format(tls=tls_port, plain=server.endpoint.port, **names))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not isinstance(caught.value, RedisAway)


def test_a_server_that_is_away_is_told_from_one_that_refuses() -> None:
    with pytest.raises(RedisAway, match="does not answer"):
        require_redis("redis://127.0.0.1:1/0")
    with pytest.raises(RedisAway, match="does not answer"):
        require_redis("rediss://127.0.0.1:1/0")
