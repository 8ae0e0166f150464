"""Endpoints: the setting that names them, what is refused there, and which of them are this machine."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudiod.endpoints import Endpoint, parse, refused_address
from mistudiod.own_address import is_this_machine
from mistudiod.secret import NAME
from mistudiod.settings import SettingsError, load


def test_ollama_and_openai_are_there_by_themselves() -> None:
    assert load({}, {"XDG_CONFIG_HOME": "/nowhere"})[0].known_endpoints == {
        "ollama": Endpoint("ollama", "http://127.0.0.1:11434/v1"),
        "openai": Endpoint("openai", "https://api.openai.com/v1"),
    }


def test_endpoints_are_named_with_their_urls_and_there_may_be_none() -> None:
    found = parse(" big = https://LLM.example.org/v1/ , small=http://box.lan:8000,, six=http://[::1]:1/v1")
    assert [one.url for one in found.values()] == [
        "https://LLM.example.org/v1",
        "http://box.lan:8000",
        "http://[::1]:1/v1",
    ]
    assert [one.host for one in found.values()] == ["llm.example.org", "box.lan", "::1"]
    assert parse("") == parse(" , ") == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("openai=https://api.openai.com/v1", "openai"),
        ("openai=http://127.0.0.1:1/v1", "openai"),
        ("a=https://LLM.example.org./v1", "llm.example.org"),
        ("a=http://box.lan:8000", "box.lan:8000"),
        ("a=http://192.168.1.5:11434/v1", "192.168.1.5:11434"),
        ("a=http://[::1]:11434/v1", None),
        ("a=http://my_box:11434/v1", None),
    ],
)
def test_the_name_of_its_secret_is_openai_or_its_host(text: str, name: str | None) -> None:
    (endpoint,) = parse(text).values()
    assert endpoint.secret_name == name


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:11434/v1", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]/v1", "http://10.1.2.3/v1",
        "http://172.16.0.1", "http://172.31.255.255", "http://192.168.0.1", "http://[fd12::1]:8080/v1",
        "http://ollama:11434/v1", "http://box.lan", "http://box.local:80/v1", "http://a.localhost/v1",
        "http://host.docker.internal:11434/v1", "http://box.home.arpa/v1",
        "https://api.example.com", "https://8.8.8.8/v1", "https://[2001:4860:4860::8888]/v1",
    ],
)  # fmt: skip
def test_this_machine_and_the_local_network_need_no_tls(url: str) -> None:
    assert parse(f"a={url}")["a"].url == url.rstrip("/")


REFUSED = {
    "a": "is no endpoint",
    "http://127.0.0.1": "is no endpoint",
    "A=http://127.0.0.1": "is no endpoint",
    "a b=http://127.0.0.1": "is no endpoint",
    "tokens=http://127.0.0.1": "stands for labels without one",
    "person=http://127.0.0.1": "stands for labels without one",
    "a=http://127.0.0.1,a=http://127.0.0.2": "given twice",
    "a=": "http or https and a host",
    "a=127.0.0.1:11434": "http or https and a host",
    "a=ftp://127.0.0.1": "http or https and a host",
    "a=file:///etc/passwd": "http or https and a host",
    "a=http://": "http or https and a host",
    "a=http://:80": "http or https and a host",
    "a=http://127.0.0.1:0": "http or https and a host",
    "a=http://127.0.0.1:99999": "cannot be read",
    "a=http://[::1": "cannot be read",
    "a=http://user:hunter2@127.0.0.1": "user or password",
    "a=http://@127.0.0.1": "user or password",
    "a=http://127.0.0.1/v1?key=1": "without query",
    "a=http://127.0.0.1/v1?": "without query",
    "a=http://127.0.0.1/v1#x": "without query",
    "a=http://127.0.0.1/v 1": "without query",
    "a=http://127.0.0.1\\x": "without query",
    "a=http://127.0.0.1/\u202e": "without query",
    "a=http://b\u00fccher.lan": "without query",
    "a=http://-x.lan": "no host that can be read",
    "a=http://x..lan": "no host that can be read",
    "a=http://2130706433": "no host that can be read",
    "a=http://0x7f.1": "no host that can be read",
    "a=http://127.1": "no host that can be read",
    "a=http://0x7f000001": "no host that can be read",
    "a=http://169.254.169.254/latest": "where a cloud keeps",
    "a=https://169.254.1.1": "link-local",
    "a=https://[fe80::1]": "link-local",
    "a=https://[fe80::1%25eth0]": "without query|link-local|no host",
    "a=https://[fd00:ec2::254]": "where a cloud keeps",
    "a=https://[::ffff:169.254.169.254]": "where a cloud keeps",
    "a=https://[64:ff9b::a9fe:a9fe]": "where a cloud keeps",
    "a=https://[2002:a9fe:a9fe::1]": "where a cloud keeps",
    "a=http://metadata.google.internal/": "where a cloud keeps",
    "a=https://Metadata.Google.Internal./": "where a cloud keeps",
    "a=https://224.0.0.1": "many machines",
    "a=https://255.255.255.255": "many machines",
    "a=https://[ff02::1]": "many machines",
    "a=http://0.0.0.0:11434": "no machine",
    "a=http://[::]:11434": "no machine",
    "a=http://api.example.com/v1": "needs https",
    "a=http://8.8.8.8": "needs https",
    "a=http://172.32.0.1": "needs https",
    "a=http://evil.lan.example.com": "needs https",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_an_endpoint_is_refused_in_one_sentence_when_the_daemon_starts(text: str) -> None:
    with pytest.raises(SettingsError, match=REFUSED[text]) as refused:
        load({"endpoints": text}, {"XDG_CONFIG_HOME": "/nowhere"})
    assert str(refused.value).startswith("--endpoints: ")
    assert "hunter2" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_wrong_endpoint_in_the_file_is_told_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mistudio.toml"
    file.write_text('endpoints = "a=http://8.8.8.8"')
    with pytest.raises(SettingsError, match=rf"^endpoints in {file}: the endpoint 'a' at 8\.8\.8\.8 needs https"):
        load({}, {}, file)


@given(st.text(st.sampled_from("ab=:/.,@?#[]%1 \\\u202e\0") | st.characters(), max_size=60))
def test_any_text_is_endpoints_or_refused_in_a_sentence(text: str) -> None:
    try:
        found = parse(text)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
    else:
        for one in found.values():
            assert one.host and one.url.startswith(("http://", "https://"))
            assert one.secret_name is None or __import__("re").fullmatch(NAME, one.secret_name)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "224.0.0.251", "239.255.255.255",
        "ff02::1", "0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
        "::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "100.100.100.200", "no address", "",
    ],
)  # fmt: skip
def test_an_address_where_nothing_is_ever_asked_is_refused_with_the_reason(address: str) -> None:
    why = refused_address(address)
    assert why is not None and address in why


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.5", "fd12::1", "8.8.8.8", "2001:4860:4860::8888", "100.64.0.1"],
)
def test_other_addresses_may_be_asked(address: str) -> None:
    assert refused_address(address) is None
    assert refused_address(ipaddress.ip_address(address)) is None


def test_loopback_its_own_names_and_addresses_are_this_machine() -> None:
    own = socket.gethostname().lower()
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost", "a.localhost", own, "host.docker.internal"):
        assert is_this_machine(host), host
    for host in ("192.0.2.1", "2001:db8::1", "api.openai.com", "8.8.8.8"):  # of which two are of nobody, RFC 5737, 3849
        assert not is_this_machine(host), host
