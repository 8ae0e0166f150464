"""The studio's certificate: made once, for the names of this machine, and never anew by itself."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mistudiod import tls
from mistudiod.settings import Settings


@pytest.fixture
def pair(tmp_path: Path) -> tls.Pair:
    made = tls.pair(Settings(data=tmp_path / "data"))
    assert not made.exists()
    made.renew()
    return made


def test_a_pair_is_made_for_the_names_of_this_machine_and_the_key_is_its_users_alone(pair: tls.Pair) -> None:
    assert pair.exists() and stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.key.parent.stat().st_mode) == 0o700
    assert sorted(one.name for one in pair.key.parent.iterdir()) == ["certificate.pem", "key.pem"]
    names, ends = pair.about()
    host = socket.gethostname().lower()
    assert {host, f"{host}.local", "localhost", "127.0.0.1", "::1"} <= set(names)
    assert ends.year == 2049
    pair.context()


def test_a_client_that_trusts_the_certificate_finds_the_names_in_it(pair: tls.Pair) -> None:
    server = pair.context()
    client = ssl.create_default_context(cafile=str(pair.certificate))
    for name in (socket.gethostname().lower(), "localhost", "127.0.0.1", "::1"):
        shake_hands(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "evil.example")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """In memory, until both are through."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue


def test_the_fingerprint_is_that_which_openssl_prints(pair: tls.Pair) -> None:
    command = ["openssl", "x509", "-in", str(pair.certificate), "-noout", "-fingerprint", "-sha256"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert printed.strip().endswith(f"={pair.fingerprint()}")


def test_every_pair_is_another(pair: tls.Pair) -> None:
    before, key = pair.fingerprint(), pair.key.read_bytes()
    pair.renew()
    assert pair.fingerprint() != before and pair.key.read_bytes() != key
    pair.context()


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_half_a_pair_is_one_sentence_and_is_not_made_anew(pair: tls.Pair, name: str) -> None:
    getattr(pair, name).unlink()
    left = [one.read_bytes() for one in pair.key.parent.iterdir()]
    with pytest.raises(tls.BadCertificate, match=r"is missing: put it back as it was, or .* certificate --renew"):
        pair.exists()
    assert [one.read_bytes() for one in pair.key.parent.iterdir()] == left


@pytest.mark.parametrize("name", ["certificate", "key"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_pair_is_one_sentence(pair: tls.Pair, name: str, content: bytes) -> None:
    getattr(pair, name).write_bytes(content)
    with pytest.raises(tls.BadCertificate, match=r"cannot be read as PEM: put it back"):
        pair.context()


def test_what_is_no_certificate_is_one_sentence_when_it_is_to_be_shown(pair: tls.Pair) -> None:
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(tls.BadCertificate, match=r"cannot be read as PEM: put it back"):
        pair.about()


def test_a_file_that_cannot_be_looked_for_is_one_sentence(tmp_path: Path) -> None:
    """As one in a folder that is closed to the daemon's user: for root no folder is, but names can be too long."""
    given = tls.pair(Settings(data=tmp_path, tls_certificate=f"{tmp_path}/{'x' * 300}", tls_key=f"{tmp_path}/key.pem"))
    with pytest.raises(tls.BadCertificate, match=r"x cannot be read: File name too long; see the settings tls_cert"):
        given.exists()


def test_a_data_folder_that_a_certificate_is_the_first_thing_in_is_its_users_alone(tmp_path: Path) -> None:
    tls.pair(Settings(data=tmp_path / "new" / "data")).renew()
    assert [oct(one.stat().st_mode)[-3:] for one in (tmp_path / "new" / "data", tmp_path / "new" / "data" / "tls")] == [
        "700"
    ] * 2


def test_a_key_of_another_certificate_is_one_sentence(pair: tls.Pair, tmp_path: Path) -> None:
    other = tls.pair(Settings(data=tmp_path / "other"))
    other.renew()
    pair.key.write_bytes(other.key.read_bytes())
    with pytest.raises(tls.BadCertificate, match="do not belong together"):
        pair.context()


def test_a_key_with_a_password_is_one_sentence_and_nobody_is_asked(pair: tls.Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(tls.BadCertificate, match="is locked with a password"):
        pair.context()


def test_a_pair_of_ones_own_is_used_and_never_written(pair: tls.Pair, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "x", tls_certificate=str(pair.certificate), tls_key=str(pair.key))
    given = tls.pair(settings)
    assert given.exists() and given.fingerprint() == pair.fingerprint()
    with pytest.raises(tls.BadCertificate, match="was given in the setting tls_certificate"):
        given.renew()
    pair.key.unlink()
    pair.certificate.unlink()
    with pytest.raises(tls.BadCertificate, match=r"is missing: see the settings tls_certificate and tls_key"):
        given.exists()
    with pytest.raises(tls.BadCertificate, match="give both settings"):
        tls.pair(Settings(data=tmp_path / "x", tls_key=str(pair.key)))


def test_of_a_chain_the_first_certificate_counts(pair: tls.Pair, tmp_path: Path) -> None:
    other = tls.pair(Settings(data=tmp_path / "other"))
    other.renew()
    before = pair.fingerprint()
    pair.certificate.write_text(f"# mine\n{pair.certificate.read_text()}{other.certificate.read_text()}")
    assert pair.fingerprint() == before
    pair.context()


def test_the_addresses_of_this_machine_are_addresses() -> None:
    from mistudiod import own_address

    for text in own_address.all_of_them():
        assert not ipaddress.ip_address(text).is_loopback
        assert own_address.is_this_machine(text)


def test_a_daemon_with_a_damaged_pair_says_so_and_does_not_start(pair: tls.Pair) -> None:
    pair.key.write_text("no key")
    command = [sys.executable, "-m", "mistudiod", "serve", "--listen", "lan", "--port", "0"]
    command += ["--data", str(pair.key.parent.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 78 and len(ended.stderr.splitlines()) == 1
    assert "cannot be read as PEM: put it back" in ended.stderr
    assert not (pair.key.parent.parent / "mistudio.db").exists()
