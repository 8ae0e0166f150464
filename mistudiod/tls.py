"""The daemon's certificate: made once, and never anew unless a person asks: other machines know the studio by it."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mistudiod import own_address
from mistudiod.errors import StudioError
from mistudiod.paths import Paths
from mistudiod.settings import Settings

if TYPE_CHECKING:
    from cryptography import x509

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?\n-----END CERTIFICATE-----\n?", re.DOTALL)
# Not from now on: a board without a clock of its own may believe that it is 1970, and its certificate would be over
# once it knows better. 2049 is the last year that certificates write with two digits.
_NOT_BEFORE, _NOT_AFTER = datetime(2024, 1, 1), datetime(2049, 12, 31)
_COMMON_NAME_CHARACTERS = 64


class BadCertificate(StudioError):
    """Certificate or key cannot be used."""


@dataclass(frozen=True)
class Pair:
    """Where certificate and key lie. ``own``: they are the studio's, made by it; else they were given by a person."""

    certificate: Path
    key: Path
    own: bool

    def exists(self) -> bool:
        """Whether it is there; False: it has to be made. Raises BadCertificate for half of one."""
        try:
            missing = [path for path in (self.certificate, self.key) if not path.exists()]
        except OSError as error:
            raise BadCertificate(f"{error.filename} cannot be read: {error.strerror}; {self._remedy}") from error
        if len(missing) == 2 and self.own:
            return False
        if missing:
            raise BadCertificate(f"{missing[0]} is missing: {self._remedy}")
        return True

    def renew(self) -> None:
        """Make a new pair in the place of what is there. Raises BadCertificate."""
        if not self.own:
            raise BadCertificate(
                f"{self.certificate} was given in the setting tls_certificate: renew it where it is made"
            )
        certificate, key = _made([socket.gethostname().lower(), *_more_names()])
        try:
            for folder in (self.key.parent.parent, self.key.parent):  # the data folder too is its user's alone
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self.key, key, 0o600)
            _write(self.certificate, certificate, 0o644)
        except OSError as error:
            raise BadCertificate(f"no certificate can be written to {self.key.parent}: {error.strerror}") from error

    def context(self) -> ssl.SSLContext:
        """What a server speaks TLS with. Raises BadCertificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password=self._no_password)
        except ssl.SSLError as error:
            what = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "cannot be read as PEM"
            raise BadCertificate(f"{self.certificate} and {self.key} {what}: {self._remedy}") from error
        except OSError as error:
            raise BadCertificate(f"{self.certificate} or {self.key} cannot be read: {error.strerror}") from error
        return context

    def fingerprint(self) -> str:
        """sha256 of the certificate, ``AA:BB:…``. Raises BadCertificate."""
        return fingerprint(ssl.PEM_cert_to_DER_cert(self._pem()))

    def about(self) -> tuple[list[str], datetime]:
        """The names and addresses that it is for, and when it ends (UTC). Raises BadCertificate."""
        from cryptography import x509

        try:
            found = x509.load_pem_x509_certificate(self._pem().encode())
        except ValueError as error:
            raise BadCertificate(f"{self.certificate} cannot be read as PEM: {self._remedy}") from error
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return [], found.not_valid_after_utc
        return [str(name.value) for name in names], found.not_valid_after_utc

    def _pem(self) -> str:
        """The first certificate of the file: others are those that have signed it."""
        try:
            found = _PEM.search(self.certificate.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise BadCertificate(f"{self.certificate} cannot be read: {error}") from error
        if found is None:
            raise BadCertificate(f"{self.certificate} holds no certificate: {self._remedy}")
        return found[0]

    def _no_password(self) -> str:
        raise BadCertificate(f"{self.key} is locked with a password: give one that is not")

    @property
    def _remedy(self) -> str:
        if not self.own:
            return "see the settings tls_certificate and tls_key"
        return (
            "put it back as it was, or make a new pair with mistudiod certificate --renew; "
            "other machines will then ask whether it is the same studio"
        )


def pair(settings: Settings) -> Pair:
    """The pair that the settings name, else the studio's own. Raises BadCertificate."""
    given = settings.tls_certificate, settings.tls_key
    if all(given):
        certificate, key = (Path(path).expanduser().absolute() for path in given)
        return Pair(certificate, key, own=False)
    if any(given):
        raise BadCertificate("give both settings, tls_certificate and tls_key, or none of them")
    folder = Paths(settings.data).tls
    return Pair(folder / "certificate.pem", folder / "key.pem", own=True)


def fingerprint(der: bytes) -> str:
    text = hashlib.sha256(der).hexdigest().upper()
    return ":".join(text[at : at + 2] for at in range(0, len(text), 2))


def _more_names() -> list[str]:
    return [f"{socket.gethostname().lower()}.local", "localhost", "127.0.0.1", "::1", *own_address.all_of_them()]


def _made(names: list[str]) -> tuple[bytes, bytes]:
    """Certificate and key in PEM, for the first name and all others. It signs nothing but itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, names[0][:_COMMON_NAME_CHARACTERS])])
    usage = x509.KeyUsage(True, *(False,) * 8)  # digital signatures and nothing else
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE.replace(tzinfo=timezone.utc))
        .not_valid_after(_NOT_AFTER.replace(tzinfo=timezone.utc))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_name(f".partial-{path.name}-{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
