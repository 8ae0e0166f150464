"""Settings: flag over variable over file over default; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistudiod.settings import Settings, SettingsError, default_of, load, table


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), **variables}


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mistudio.toml"
    file.write_text("port = 1\nio_jobs = 5\nlisten = '::1'")
    env = environment(tmp_path, MISTUDIO_PORT="2", MISTUDIO_IO_JOBS="4")
    settings, warnings = load({"port": 3, "data": None}, env, file)
    assert (settings.port, settings.io_jobs, settings.listen) == (3, 4, "::1")
    assert settings.preview_limit_s == Settings().preview_limit_s
    assert warnings == []


def test_a_service_keeps_its_data_where_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/.data")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert Settings().data == Path("/home/me/.data/mistudio")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/mistudio:/var/lib/more")
    assert Settings().data == Path("/var/lib/mistudio")


def test_whoever_runs_it_as_the_services_user_has_the_services_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("HOME", "/var/lib/mistudio")
    assert Settings().data == Path("/var/lib/mistudio")


def test_the_users_file_is_found_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "mistudio"
    folder.mkdir(parents=True)
    (folder / "mistudio.toml").write_text("port = 9")
    assert load({}, environment(tmp_path))[0].port == 9


def test_an_unknown_key_in_the_file_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "mistudio.toml"
    file.write_text("prot = 1")
    with pytest.raises(SettingsError, match=r"'prot'; did you mean port\?"):
        load({}, environment(tmp_path), file)


def test_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    _, warnings = load({}, environment(tmp_path, MISTUDIO_DATTA="x", MISTUDIO_HOST="h", MISTUDIO_TOKEN="t"))
    assert len(warnings) == 1 and "MISTUDIO_DATTA" in warnings[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "x"), ("port", "-1"), ("port", "70000"), ("port", "1.5"), ("io_jobs", "0"), ("stop_grace_s", "nan"),
     ("stop_grace_s", "-1"), ("data", "")],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named_with_where_it_came_from(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MISTUDIO_{name.upper()}"):
        load({}, environment(tmp_path, **{f"MISTUDIO_{name.upper()}": value}))


def test_a_file_that_is_missing_or_no_toml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, environment(tmp_path), tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("port = = 1")
    with pytest.raises(SettingsError, match="is not TOML"):
        load({}, environment(tmp_path), tmp_path / "bad.toml")


def test_every_setting_has_a_help_text_and_a_default() -> None:
    for setting in table():
        assert setting.metadata["help"]
        assert default_of(setting) is not None


@pytest.mark.parametrize(("text", "found"), [("true", True), ("1", True), ("Off", False), ("no", False)])
def test_a_switch_is_on_or_off(text: str, found: bool) -> None:
    assert load({}, {"MISTUDIO_OFFLINE": text})[0].offline is found
    with pytest.raises(SettingsError, match="true or false"):
        load({}, {"MISTUDIO_OFFLINE": "perhaps"})


@pytest.mark.parametrize("text", ["port = inf", "port = nan", "data = '~nobodyatall/x'", "listen = ''", "offline = 3"])
def test_an_odd_value_in_the_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(SettingsError):
        load({}, {}, tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://www.neuronpedia.org", "needs https"),
        ("ftp://box.lan", "needs a URL with http or https"),
        ("https://me:secret@box.lan", "has a user or password in it"),
        ("https://169.254.169.254", "is where a cloud keeps its machines' keys"),
        ("http://169.254.1.1", "is a link-local address"),
        ("https://metadata.google.internal", "where a cloud keeps keys"),
        ("https://a.example/?key=1", "without query"),
        ("", "needs a URL"),
    ],
)
def test_where_features_are_uploaded_to_is_an_address_that_may_be_asked(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"MISTUDIO_NEURONPEDIA_URL: .*{said}"):
        load({}, environment(tmp_path, MISTUDIO_NEURONPEDIA_URL=url))


def test_a_neuronpedia_of_ones_own_may_be_near_and_plain(tmp_path: Path) -> None:
    for url, near in (("http://box.lan:3000/np/", True), ("https://10.0.0.9", True), ("https://a.example", False)):
        found = load({}, environment(tmp_path, MISTUDIO_NEURONPEDIA_URL=url))[0].neuronpedia
        assert (found.url, found.is_near) == (url.rstrip("/"), near)
    assert Settings().neuronpedia.url == "https://www.neuronpedia.org"
