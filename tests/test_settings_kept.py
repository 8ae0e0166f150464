"""Settings that are changed while the studio runs: what holds, from when on, who may change them; the daemon's log."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact
from openai_server import OpenAIServer, served_openai  # noqa: F401, the fixture openai_server
from studio import ROOT, running
from test_labels_jobs import Shop

from mistudiod import settings
from mistudiod.api.keys import GIVING, KEPT, PATHS
from mistudiod.api.settings import SettingsChange
from mistudiod.errors import Conflict, Invalid
from mistudiod.kept_settings import LIVE, KeptSettings
from mistudiod.redact import PROCESS
from mistudiod.serving import keep_log
from mistudiod.settings import Settings, SettingsError

SECRET = "sk-canary-0123456789abcdef0123456789"


def kept(tmp_path: Path, given: Settings | None = None, environ: dict[str, str] | None = None) -> KeptSettings:
    return KeptSettings(
        given or Settings(data=tmp_path), tmp_path / "settings.json", {} if environ is None else environ
    )


def shown(found: list[dict[str, Any]], name: str) -> tuple[Any, ...]:
    one = next(one for one in found if one["name"] == name)
    return one["value"], one["source"], one["where"], one["changeable"]


# -- what holds ------------------------------------------------------------------------------------------------------


def test_a_flag_beats_a_variable_beats_the_file_beats_what_is_kept_beats_the_default(tmp_path: Path) -> None:
    first = kept(tmp_path)
    assert shown(first.listed(), "session_keep_alive") == ("5m", "default", None, True)
    wanted = {
        "session_keep_alive": "1h",
        "offline": True,
        "label_model": "small",
        "neuronpedia_url": "https://a.example",
    }
    first.change({**wanted, "endpoints": "a=https://a.example"})
    file = tmp_path / "mistudio.toml"
    file.write_text('session_keep_alive = "2m"\nlabel_model = "of-the-file"\noffline = false\n')
    environ = {"MISTUDIO_LABEL_MODEL": "of-the-variable", "MISTUDIO_OFFLINE": "0"}
    given, _ = settings.load({"offline": "false"}, environ, file)
    found = kept(tmp_path, given).listed()
    assert shown(found, "offline") == (False, "flag", "--offline", False)
    assert shown(found, "label_model") == ("of-the-variable", "environment", "MISTUDIO_LABEL_MODEL", False)
    assert shown(found, "session_keep_alive") == ("2m", "file", f"session_keep_alive in {file}", False)
    assert shown(found, "neuronpedia_url") == ("https://a.example", "kept", None, True)
    assert shown(found, "port") == (6478, "default", None, False)
    assert [one["name"] for one in found] == [setting.name for setting in settings.table()]


def test_what_is_given_elsewhere_can_only_be_changed_there_and_nothing_else_changes_then(tmp_path: Path) -> None:
    given, _ = settings.load({}, {"MISTUDIO_OFFLINE": "1", "XDG_CONFIG_HOME": "/nowhere"})
    pinned = kept(tmp_path, given)
    with pytest.raises(Conflict, match=r"^offline is set by MISTUDIO_OFFLINE: change it there") as refused:
        pinned.change({"label_model": "m", "offline": False})
    assert list(refused.value.fields or {}) == ["offline"]
    assert pinned.now.offline and pinned.now.label_model == "" and not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_machine_that_is_offline_for_the_libraries_is_so_whatever_else_is_said(tmp_path: Path, variable: str) -> None:
    found = kept(tmp_path, Settings(data=tmp_path, offline=False), {variable: "1"})
    assert shown(found.listed(), "offline") == (True, "environment", variable, False)
    with pytest.raises(Conflict, match=variable):
        found.change({"offline": False})


def test_workers_are_told_that_nothing_is_fetched_and_the_environment_is_left_as_it_was(tmp_path: Path) -> None:
    environ: dict[str, str] = {"HF_HUB_OFFLINE": "0"}
    found = kept(tmp_path, environ=environ)
    found.tell_workers()
    assert environ == {"HF_HUB_OFFLINE": "0"}
    found.change({"offline": True})
    assert environ == {"HF_HUB_OFFLINE": "1"}
    found.change({"offline": None})
    assert environ == {}
    found.change({"offline": True})
    found.close()
    assert environ == {}


def test_what_is_kept_is_kept_over_a_restart_and_forgotten_with_null(tmp_path: Path) -> None:
    kept(tmp_path).change({"session_keep_alive": "-1", "endpoints": "a=https://a.example", "label_endpoint": "a"})
    again = kept(tmp_path)
    assert (again.now.session_keep_alive, list(again.now.known_endpoints)) == ("-1", ["a"])
    again.change({"session_keep_alive": None, "endpoints": None, "label_endpoint": None})
    assert json.loads((tmp_path / "settings.json").read_text()) == {}
    assert shown(kept(tmp_path).listed(), "endpoints")[1] == "default"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"port": 1}', '{"offline": "maybe"}', '{"endpoints": "a=http://169.254.169.254"}',
     '{"offline": null}', "\x00", '{"label_model": {}}'],
)  # fmt: skip
def test_a_file_that_cannot_be_trusted_keeps_the_studio_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.json.*remove it") as refused:
        kept(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoints": "a=http://8.8.8.8/v1"}, "needs https"),
        ({"endpoints": "a=http://169.254.169.254/latest"}, "where a cloud keeps"),
        ({"endpoints": f"a=https://me:{SECRET}@a.example"}, "user or password"),
        ({"endpoints": "tokens=https://a.example"}, "choose another"),
        ({"endpoints": "a=https://a.example,a=https://b.example"}, "twice"),
        ({"neuronpedia_url": "http://neuronpedia.example"}, "needs https"),
        ({"session_keep_alive": "soon"}, "is no duration"),
        ({"label_endpoint": "nobody"}, "which there is not"),
        ({"label_endpoint": "HTTP://X"}, "is no endpoint's name"),
        ({"label_model": "a\nb"}, "one line"),
        ({"endpoints": "other=https://a.example", "label_endpoint": "openai"}, "which there is not"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field_and_nothing_is_kept(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    found = kept(tmp_path)
    with pytest.raises(Invalid, match=words) as refused:
        found.change({"label_model": "m", **changes})
    assert refused.value.fields and set(refused.value.fields) <= set(changes)
    assert SECRET not in str(refused.value.body()) and str(refused.value).isprintable()
    assert found.now.label_model == "" or "label_model" in changes
    assert not (tmp_path / "settings.json").exists()


def test_an_endpoint_that_labels_begin_with_is_not_removed_under_them(tmp_path: Path) -> None:
    found = kept(tmp_path)
    found.change({"label_endpoint": "ollama"})
    with pytest.raises(Invalid, match="ollama"):
        found.change({"endpoints": "openai=https://api.openai.com/v1"})
    found.change({"endpoints": "openai=https://api.openai.com/v1", "label_endpoint": "tokens"})


def test_no_key_can_be_had_by_sending_it_elsewhere(tmp_path: Path) -> None:
    found = kept(tmp_path)
    for changes, secret in (
        ({"endpoints": "openai=https://evil.example"}, "openai"),
        ({"neuronpedia_url": "https://evil.example"}, "neuronpedia"),
    ):
        with pytest.raises(Conflict, match=r"would be sent to evil\.example: forget it first"):
            found.change(changes, [secret])
        found.change(changes, [])
        found.change(changes, [secret])  # nothing changes
    with pytest.raises(Conflict, match=r"would be sent to api\.openai\.com"):
        found.change({"endpoints": None}, ["openai"])
    found.change({"endpoints": "more=https://a.example"}, ["openai"])
    with pytest.raises(Conflict, match="evil"):
        found.change({"endpoints": "openai=https://evil.example"}, ["openai"])


def test_the_route_takes_what_can_be_changed_and_no_more() -> None:
    assert set(SettingsChange.model_fields) == set(LIVE)


# -- over HTTP -------------------------------------------------------------------------------------------------------


async def test_settings_are_changed_over_http_and_are_there_after_a_restart(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    changes = {"session_keep_alive": "1h", "endpoints": "far=https://far.example/v1", "label_endpoint": "far"}
    status, body = await studio.call("PATCH", "/api/settings", json=changes)
    assert status == 200 and shown(body["settings"], "session_keep_alive") == ("1h", "kept", None, True)
    assert [one["name"] for one in (await studio.get("/api/endpoints"))["endpoints"]] == ["far"]
    for wrong in ({"port": 1}, {"offline": "maybe"}, {"endpoints": "x" * 20_001}, {"label_endpoint": 3}, []):
        status, body = await studio.call("PATCH", "/api/settings", json=wrong)
        assert status == 400, body
    status, body = await studio.call("PATCH", "/api/settings", json={"session_keep_alive": "soon"})
    assert status == 400 and "is no duration" in body["error"]["fields"]["session_keep_alive"]
    before = await studio.get("/api/settings")
    await studio.server.close()
    again = await open_studio()
    assert await again.get("/api/settings") == before
    assert again.app[KEPT].now.session_keep_alive == "1h"


async def test_only_an_admin_changes_settings_and_reads_the_log_and_a_secret_is_in_neither(studio: Studio) -> None:
    await studio.call("PUT", "/api/secrets/openai", json={"value": SECRET})
    tokens = {}
    for scope in ("read", "write", "admin"):
        _, made = await studio.call("POST", "/api/tokens", json={"name": scope, "scope": scope})
        tokens[scope] = {"Authorization": f"Bearer {made['token']}"}
    for scope, expected in (("read", 403), ("write", 403), ("admin", 200)):
        assert (await studio.call("PATCH", "/api/settings", json={}, headers=tokens[scope]))[0] == expected
        assert (await studio.call("GET", "/api/log", headers=tokens[scope]))[0] == expected
    status, body = await studio.call("GET", "/api/settings", headers=tokens["read"])
    assert status == 200 and SECRET not in json.dumps(body)
    status, body = await studio.call("PATCH", "/api/settings", json={"endpoints": "openai=https://evil.example"})
    assert status == 409 and SECRET not in json.dumps(body)
    # Another site's page cannot: its request is refused whatever it asks.
    status, _ = await studio.call("PATCH", "/api/settings", json={}, headers={"Sec-Fetch-Site": "cross-site"})
    assert status == 403


async def test_the_log_is_the_end_of_what_the_daemon_wrote_without_secrets(studio: Studio) -> None:
    assert await studio.get("/api/log") == {"log": ""}
    PROCESS.know([SECRET])
    studio.app[PATHS].log.write_text(f"one\nINFO key {SECRET}\nlast\n")
    assert await studio.get("/api/log") == {"log": "one\nINFO key ***\nlast\n"}
    assert await studio.get("/api/log?tail_bytes=5") == {"log": "last\n"}
    assert (await studio.call("GET", "/api/log?tail_bytes=0"))[0] == 400


def test_the_daemon_writes_its_log_into_the_data_folder(tmp_path: Path) -> None:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    try:
        keep_log(tmp_path / "data")
        PROCESS.know([SECRET])
        logging.getLogger("mistudiod.test").warning("with the key %s", SECRET)
        assert (tmp_path / "data" / "mistudiod.log").read_text().endswith("WARNING mistudiod.test: with the key ***\n")
    finally:
        for handler in [one for one in root.handlers if one not in before]:
            root.removeHandler(handler)
            handler.close()


def test_a_log_that_is_in_the_data_folder_already_is_not_written_twice(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from mistudiod.serving import keep_log; keep_log(Path({str(tmp_path)!r}))"
    code += "; import logging; print(len(logging.getLogger().handlers))"
    with open(tmp_path / "mistudiod.log", "w") as log:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
    assert (run.returncode, run.stdout) == (0, "0\n")


# -- from when on ----------------------------------------------------------------------------------------------------


async def test_jobs_that_start_later_are_told_that_the_studio_is_offline(
    open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    studio = await open_studio()
    await studio.call("PATCH", "/api/settings", json={"offline": True})
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # which a worker inherits
    job = await studio.submit(dataset("quick"))
    assert (await studio.until(job["id"]))["state"] == "done"
    await studio.call("PATCH", "/api/settings", json={"offline": False})
    assert "HF_HUB_OFFLINE" not in os.environ
    await studio.call("PATCH", "/api/settings", json={"offline": True})
    await studio.server.close()
    assert "HF_HUB_OFFLINE" not in os.environ


async def test_a_job_asks_the_endpoint_of_the_time_when_it_starts_in_the_lane_of_that_time(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    put_artifact(data, "saes", "ok", "recipe.json", json.dumps({"width": 12, "job": 1}))
    put_artifact(data, "features", "ok/3", "manifest.json", json.dumps({"d_sae": 12, "dead": 2}))
    (data / "templates").mkdir()
    (data / "templates" / "label.txt").write_text("--- user\nprompt {strong}\n")
    studio = await open_studio(endpoints="x=https://192.0.2.1/v1")
    studio.app[GIVING].open_store = Shop
    for host in ("192.0.2.1", "127.0.0.1:7"):
        await studio.call("PUT", f"/api/secrets/{host}", json={"value": f"key-of-{host}"})
    first = await studio.submit(dataset("slow"))
    label = {"kind": "label", "sae": "ok", "endpoint": "x", "model": "m", "features": [0], "template": "label"}
    job = await studio.submit(label, after=[first["id"]])
    assert job["lane"] == "io"
    changes = {"endpoints": "x=http://127.0.0.1:7/v1"}
    assert (await studio.call("PATCH", "/api/settings", json=changes))[0] == 200
    assert (await studio.get(f"/api/jobs/{job['id']}"))["lane"] == "gpu"
    await studio.act(first["id"], "stop")
    stopped = await studio.submit(label)
    await studio.until(stopped["id"])
    given = json.loads((data / "runs" / str(stopped["id"]) / "given.json").read_text())
    assert (given["endpoint"]["url"], given["endpoint"]["secret"]) == ("http://127.0.0.1:7/v1", "127.0.0.1:7")
    status, body = await studio.call("PATCH", "/api/settings", json={"endpoints": ""})
    assert status == 200
    status, body = await studio.call("POST", "/api/jobs", json={"spec": label})
    assert status == 400 and "no endpoint 'x'" in body["error"]["message"]


# -- is an endpoint there? -------------------------------------------------------------------------------------------


def test_an_endpoint_is_asked_for_its_models_with_its_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    def post(url: str, path: str, method: str = "POST", body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer) if answer.status != 204 else None
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["error"]["message"]

    openai_server.models = ["b", "a", "<img onerror>"]
    server = str(openai_server.given()["url"])
    address = {"endpoints": f"ours={server},nobody=http://127.0.0.1:9/v1"}
    with running(tmp_path / "data", "real_worker.py") as url:
        post(url, "/api/settings", "PATCH", address)
        assert post(url, "/api/endpoints/ours/models") == (200, {"models": ["<img onerror>", "a", "b"], "left_out": 0})
        status, message = post(url, "/api/endpoints/ours/models")
        assert status == 429 and "a moment ago" in message
        status, message = post(url, "/api/endpoints/nobody/models")
        assert status == 400 and "nobody does not answer at http://127.0.0.1:9/v1" in message
        assert post(url, "/api/endpoints/gone/models")[0] == 404
