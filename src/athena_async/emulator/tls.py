"""A certificate authority for tests: written once into a folder, used from then on.

The folder holds ``ca.pem`` and ``ca.key``, ``server.pem`` and ``server.key`` for localhost, 127.0.0.1
and ::1, and ``client.pem`` and ``client.key`` for mutual TLS. Keys are readable by their owner alone.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from athena_async.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_VALID_DAYS = 825
_FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class TestAuthority:
    """The files of one folder."""

    __test__ = False
    folder: Path

    @classmethod
    def ensure(cls, folder: Path) -> TestAuthority:
        """Takes what the folder holds, or writes it. Processes that race for it get the same files.

        Raises:
            ConfigError: the folder holds some of the files, but not all, or the certificates have expired.
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        found = cls(folder)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = [name for name in _FILES if (folder / name).is_file()]
            if not present:
                _write(folder)
            elif not found._usable(present):
                raise ConfigError("tls_dir", str(folder), "a folder with a whole, valid test CA, or none to write one")
        return found

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def grpc_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Credentials of the gRPC server; ``mutual`` asks clients for a certificate of this CA."""
        pair = ((self.folder / "server.key").read_bytes(), (self.folder / "server.pem").read_bytes())
        roots = self.ca.read_bytes() if mutual else None
        return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=mutual)

    def http_context(self) -> ssl.SSLContext:
        """TLS of the HTTP servers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        return context

    def _usable(self, present: list[str]) -> bool:
        """Users may bring files of their own: what is served must be there and be valid now."""
        from cryptography import x509

        if not {"ca.pem", "server.pem", "server.key"} <= set(present):
            return False
        now = datetime.datetime.now(datetime.UTC)
        try:
            certificates = [x509.load_pem_x509_certificate((self.folder / n).read_bytes()) for n in _FILES[0:3:2]]
        except ValueError:
            return False
        return all(found.not_valid_before_utc <= now <= found.not_valid_after_utc for found in certificates)


def _write(folder: Path) -> None:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ImportError:
        raise MissingExtraError("tls_dir", "emulator") from None
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _signed(_name("Athena emulator test CA"), ca_key, None, ca_key, _ca_extensions(ca_key))
    _put(folder, "ca", ca, ca_key)
    names: list[x509.GeneralName] = [
        x509.DNSName(host) if host == "localhost" else x509.IPAddress(ipaddress.ip_address(host)) for host in _HOSTS
    ]
    for name, usage, subjects in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, names),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("athena-client.test")]),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.SubjectAlternativeName(subjects), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
        ]
        subject = "localhost" if name == "server" else "athena-client.test"
        _put(folder, name, _signed(_name(subject), key, ca.subject, ca_key, extensions), key)


def _ca_extensions(key: ec.EllipticCurvePrivateKey) -> list[tuple[x509.ExtensionType, bool]]:
    from cryptography import x509

    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _put(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
