"""An endpoint is asked through the real client and real HTTP: what is retried, what ends one question, what the job."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import (
    BREAKS,
    HANGS,
    OpenAIServer,
    Reply,
    content,
    error,
    html,
    label,
    served_openai,  # noqa: F401, the fixture openai_server
)

from mistudiod import endpoints
from mistudiod.endpoints import refused_address
from mistudiod.paths import Paths
from mistudiod.specs import Label
from mistudiod.worker.asking import each, run_until_asked
from mistudiod.worker.budget import Budget, BudgetReached, Purse
from mistudiod.worker.endpoint import Answer, Endpoint, base_url
from mistudiod.worker.endpoint_errors import Unanswered
from mistudiod.worker.link import Asked, Link, Refused

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
MESSAGES = [{"role": "system", "content": "Say."}, {"role": "user", "content": "What?"}]
KEY = "sk-canary-0123456789abcdef"


def spec(**fields: Any) -> Label:
    return Label.model_validate({"sae": "s", "endpoint": "ours", "model": "m", "features": [1], **fields})


def asked(server: OpenAIServer, times: int = 1, schema: Any = SCHEMA, key: str | None = None, **fields: Any) -> Any:
    """What so many questions, asked one after the other, are answered with."""

    async def ask() -> list[Answer]:
        async with Endpoint(server.given(), spec(**fields), key) as endpoint:
            return [await endpoint.ask(MESSAGES, schema, 100) for _ in range(times)]

    answers = asyncio.run(ask())
    return answers if times > 1 else answers[0]


def refusal(server: OpenAIServer, **fields: Any) -> str:
    with pytest.raises(Refused) as caught:
        asked(server, **fields)
    return str(caught.value)


def reason(server: OpenAIServer, **fields: Any) -> str:
    with pytest.raises(Unanswered) as caught:
        asked(server, **fields)
    return str(caught.value)


def test_an_answer_comes_with_the_tokens_that_were_counted(openai_server: OpenAIServer) -> None:
    openai_server.replies = [content("yes", usage=(7, 3))]
    assert asked(openai_server, key=KEY) == Answer("yes", 7, 3)
    [seen] = openai_server.seen
    assert seen.authorization == f"Bearer {KEY}"
    assert seen.body["messages"] == MESSAGES
    assert (seen.body["model"], seen.body["temperature"], seen.body["max_tokens"]) == ("m", 0, 100)
    assert seen.body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_where_nobody_counts_tokens_they_are_guessed_from_characters(openai_server: OpenAIServer) -> None:
    openai_server.replies = [content("a" * 36, usage=None)]
    assert asked(openai_server) == Answer("a" * 36, 3, 11)


@pytest.mark.parametrize("usage", [("12", "3"), (-500, -1), (True, 2.5), (2**53, 10**400), ([], {})], ids=str)
def test_what_cannot_be_a_number_of_tokens_is_guessed_too(openai_server: OpenAIServer, usage: Any) -> None:
    reply = content("a" * 36, usage=None)
    counts = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    openai_server.replies = [replace(reply, body={**reply.body, "usage": counts})]
    assert asked(openai_server) == Answer("a" * 36, 3, 11)


@pytest.mark.parametrize("choices", [{"a": 1}, ["a"], [{"message": {"content": "x"}, "finish_reason": None}]], ids=str)
def test_choices_of_another_kind_never_end_the_job(openai_server: OpenAIServer, choices: Any) -> None:
    openai_server.replies = [label(), Reply(body={"choices": choices, "usage": "none"}), label()]
    answered = []

    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            for _ in range(3):
                with contextlib.suppress(Unanswered):
                    answered.append(await endpoint.ask(MESSAGES, SCHEMA, 100))

    asyncio.run(ask())
    assert len(answered) >= 2 and len(openai_server.seen) == 3


@pytest.mark.parametrize(
    ("location", "shown"),
    [("http://[x", "elsewhere"), ("http://" + "a" * 5000, "a" * 199 + "…"), ("http://me:secret@b/", "b")],
)
def test_a_redirect_to_nowhere_in_particular_is_told_in_a_few_words(
    openai_server: OpenAIServer, location: str, shown: str
) -> None:
    openai_server.always = lambda body: Reply(302, {}, {"Location": location})
    assert f"sends us on to {shown}, which is refused" in refusal(openai_server)


def test_organization_and_headers_of_the_environment_are_sent_to_nobody(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: canary")
    asked(openai_server)
    assert "canary" not in str(openai_server.seen)


def test_a_server_that_knows_no_schema_is_asked_for_one_once(openai_server: OpenAIServer) -> None:
    openai_server.replies = [error(400, "response_format is not supported")]
    assert len(asked(openai_server, times=3)) == 3
    assert ["response_format" in seen.body for seen in openai_server.seen] == [True, False, False, False]


def test_a_model_that_refuses_max_tokens_and_temperature_is_asked_without(openai_server: OpenAIServer) -> None:
    openai_server.replies = [
        error(
            400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "unsupported_parameter"
        ),
        error(400, "Unsupported value: 'temperature' does not support 0. Only the default (1) value is supported."),
    ]
    asked(openai_server, times=2)
    assert len(openai_server.seen) == 4
    last = openai_server.seen[-1].body
    assert last["max_completion_tokens"] == 100
    assert "response_format" in last
    assert not {"max_tokens", "temperature"} & set(last)


def test_a_model_known_to_think_is_asked_so_from_the_first(openai_server: OpenAIServer) -> None:
    openai_server.models = ["o4-mini"]
    asked(openai_server, model="o4-mini")
    assert openai_server.seen[0].body["max_completion_tokens"] == 800
    assert "temperature" not in openai_server.seen[0].body


def test_a_server_that_refuses_everything_has_refused_this_question_only(openai_server: OpenAIServer) -> None:
    openai_server.always = lambda body: error(400, "no way")
    assert reason(openai_server) == "the endpoint answered 400: no way"
    assert 3 <= len(openai_server.seen) <= 6


def test_a_text_too_long_for_the_model_is_no_reason_to_ask_otherwise(openai_server: OpenAIServer) -> None:
    openai_server.replies = [error(400, "This model's maximum context length is 512 tokens")]
    assert "maximum context" in reason(openai_server)
    assert len(openai_server.seen) == 1


def test_an_answer_that_was_all_thinking_is_asked_for_with_more_room(openai_server: OpenAIServer) -> None:
    openai_server.replies = [content("<think>Let me see", finish="length"), content("<think>So.</think>yes")]
    asked(openai_server, times=2)
    assert [seen.body["max_tokens"] for seen in openai_server.seen] == [100, 800, 800]


def test_too_many_requests_are_asked_again_as_late_as_the_server_says(openai_server: OpenAIServer) -> None:
    openai_server.replies = [error(429, headers={"Retry-After": "1"})]

    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            await endpoint.ask(MESSAGES, SCHEMA, 100)
            openai_server.replies = [error(429, headers={"Retry-After": "1"})]
            await asyncio.gather(*(endpoint.ask(MESSAGES, SCHEMA, 100) for _ in range(4)))
            late = asyncio.get_running_loop().time()
            assert endpoint._not_before <= late

    asyncio.run(ask())
    at = [seen.at for seen in openai_server.seen]
    assert at[1] - at[0] >= 0.95
    assert len(at) == 7


def test_while_the_server_asks_to_wait_no_other_question_is_asked(openai_server: OpenAIServer) -> None:
    openai_server.replies = [label(), error(429, headers={"Retry-After": "1"})]

    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            await endpoint.ask(MESSAGES, SCHEMA, 100)
            first = asyncio.ensure_future(endpoint.ask(MESSAGES, SCHEMA, 100))
            while not endpoint._not_before:  # until the 429 is heard
                await asyncio.sleep(0.01)
            await asyncio.gather(first, endpoint.ask(MESSAGES, SCHEMA, 100))

    asyncio.run(ask())
    at = [seen.at for seen in openai_server.seen]
    assert len(at) == 4
    assert min(at[2:]) - at[1] >= 0.95


@pytest.mark.parametrize("passing", [error(500), error(503), error(408), html(502), BREAKS], ids=str)
def test_what_may_pass_is_asked_again(openai_server: OpenAIServer, passing: Reply) -> None:
    openai_server.replies = [label(), passing]
    assert len(asked(openai_server, times=2)) == 2
    assert len(openai_server.seen) == 3


def test_a_server_that_stays_broken_has_failed_this_question(openai_server: OpenAIServer) -> None:
    openai_server.replies = [label()] + [error(500, "out of memory")] * 4
    assert reason(openai_server, times=2) == "the endpoint answered 500: out of memory"
    assert len(openai_server.seen) == 5


def test_an_answer_that_does_not_come_in_time_has_failed_this_question(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistudiod.worker.endpoint.RETRIES", 1)
    openai_server.always = lambda body: HANGS
    assert reason(openai_server, timeout_s=1) == "no answer within 1 s"
    assert len(openai_server.seen) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_job_after_one_request(openai_server: OpenAIServer, status: int) -> None:
    openai_server.always = lambda body: error(status, f"Incorrect API key provided: {KEY}", "invalid_api_key")

    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), KEY) as endpoint:

            async def one(_n: int) -> None:
                await endpoint.ask(MESSAGES, SCHEMA, 100)

            await each(range(40), 4, one)

    with pytest.raises(Refused) as caught:
        asyncio.run(ask())
    host = openai_server.url.removeprefix("http://").removesuffix("/v1")
    assert f"mistudio secret set {host}" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(openai_server.seen) == 1


def test_an_unknown_model_ends_the_job_and_the_models_there_are_named(openai_server: OpenAIServer) -> None:
    openai_server.models = ["llama3.2:3b", "qwen3:4b"]
    openai_server.always = lambda body: error(404, 'model "m" not found, try pulling it first')
    assert refusal(openai_server) == "ours has no model m; it has llama3.2:3b, qwen3:4b"
    assert len(openai_server.seen) == 1


def test_an_unknown_model_is_told_where_no_models_are_listed(openai_server: OpenAIServer) -> None:
    openai_server.models = None
    openai_server.always = lambda body: error(404, "The model `m` does not exist", "model_not_found")
    assert refusal(openai_server) == "ours has no model m: see there what it is called"


def test_an_address_without_an_api_is_told(openai_server: OpenAIServer) -> None:
    openai_server.models = None
    openai_server.always = lambda body: Reply(404, "404 page not found", {"Content-Type": "text/plain"})
    assert "with the /v1 at its end?" in refusal(openai_server)


def test_a_web_page_in_place_of_an_answer_ends_the_job(openai_server: OpenAIServer) -> None:
    openai_server.always = lambda body: html()
    assert "answers with a web page" in refusal(openai_server)
    assert len(openai_server.seen) == 1


def test_broken_json_ends_the_job_at_first_and_one_question_later(openai_server: OpenAIServer) -> None:
    broken = Reply(200, '{"choices": [', {"Content-Type": "application/json"})
    openai_server.replies = [broken]
    assert "something that is no JSON" in refusal(openai_server)
    openai_server.replies = [label(), broken]
    assert reason(openai_server, times=2) == "the endpoint answered with something that is no JSON"


def test_json_that_is_no_completion_has_failed_this_question(openai_server: OpenAIServer) -> None:
    openai_server.replies = [Reply(200, {"error": {"message": "overloaded"}})]
    assert reason(openai_server) == "the endpoint answered without an answer: overloaded"
    for strange in ([], 3, None, {"choices": []}, {"choices": [{"message": None}]}):
        openai_server.replies = [Reply(200, strange)]
        assert reason(openai_server) == "the endpoint gave no answer"


def test_a_redirect_to_another_host_is_refused_and_not_followed(openai_server: OpenAIServer) -> None:
    with OpenAIServer() as other:
        openai_server.always = lambda body: Reply(307, {}, {"Location": f"{other.url}/chat/completions"})
        assert f"sends us on to {other.url.split('/')[2]}, which is refused" in refusal(openai_server, key=KEY)
        assert other.seen == []
    assert len(openai_server.seen) == 1


@pytest.mark.parametrize("reply", [error(429, "You exceeded your quota", "insufficient_quota"), error(402)])
def test_an_account_without_credit_ends_the_job_without_a_retry(openai_server: OpenAIServer, reply: Reply) -> None:
    openai_server.replies = [label(), reply]
    assert "no credit left" in refusal(openai_server, times=2)
    assert len(openai_server.seen) == 2


def test_nobody_listening_is_told_at_once(openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "openai")  # of which it says its retries
    openai_server.close()

    async def ask() -> str:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            with pytest.raises(Refused) as caught:
                await endpoint.ask(MESSAGES, SCHEMA, 100)
            return str(caught.value)

    told = asyncio.run(ask())
    assert "Retrying" not in caplog.text
    assert told.startswith(f"ours does not answer at {openai_server.url} (connection refused): start it, or correct")


def test_a_server_that_goes_away_ends_the_job(openai_server: OpenAIServer) -> None:
    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            await endpoint.ask(MESSAGES, SCHEMA, 100)
            await asyncio.to_thread(openai_server.close)
            await endpoint.ask(MESSAGES, SCHEMA, 100)

    with pytest.raises(Refused, match="does not answer at"):
        asyncio.run(ask())


def test_a_host_that_there_is_not_is_told(openai_server: OpenAIServer) -> None:
    openai_server.url = "http://nobody.invalid:1/v1"
    assert "there is no host nobody.invalid" in refusal(openai_server)


def test_whoever_does_not_speak_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def chatter() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()

        threading.Thread(target=chatter, daemon=True).start()
        server = OpenAIServer()
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert "does not speak HTTP as it should" in refusal(server)
        listener.shutdown(socket.SHUT_RDWR)
    server._loop.close()


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_addresses_of_metadata_are_refused(address: str) -> None:
    assert refused_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.168.1.7", "10.0.0.1", "100.64.0.3", "104.18.6.192"])
def test_loopback_local_and_public_addresses_may_be_asked(address: str) -> None:
    assert refused_address(address) is None


def test_a_metadata_address_is_refused_before_anything_is_sent(openai_server: OpenAIServer) -> None:
    openai_server.url = "http://169.254.169.254/v1"
    assert "169.254.169.254" in refusal(openai_server)


def test_a_name_that_turns_to_a_refused_address_later_is_sent_nothing(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = socket.getaddrinfo
    port = int(openai_server.url.split(":")[2].removesuffix("/v1"))
    openai_server.replies = [replace(label(), headers={"Connection": "close"})]
    openai_server.url = f"http://turns.lan:{port}/v1"

    def turning(host: Any, *args: Any, **options: Any) -> Any:
        # 127.0.0.2 stands in for an address that a cloud keeps keys at: that there is none here is well so
        turned = "127.0.0.2" if openai_server.seen else "127.0.0.1"
        return resolved(turned if host in ("turns.lan", b"turns.lan") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", turning)
    monkeypatch.setattr(endpoints, "_METADATA", {ipaddress.ip_address("127.0.0.2")})
    with socket.create_server(("127.0.0.2", port)) as cloud:
        cloud.settimeout(5)
        said = refusal(openai_server, times=2, key=KEY)
        connection, _ = cloud.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(1000) == b""
    assert "its host is not where an endpoint can be: 127.0.0.2 is where a cloud keeps" in said
    assert len(openai_server.seen) == 1


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("http://user:pass@h/", "http://h/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
    ],
)
def test_an_address_without_a_path_is_asked_under_v1(url: str, base: str) -> None:
    assert base_url(url) == base


def asked_within(server: OpenAIServer, questions: int, **fields: Any) -> tuple[int, Endpoint]:
    """How many of so many questions were answered before the budget was reached."""
    answered = 0

    async def ask() -> Endpoint:
        async with Endpoint(server.given(on_this_machine=False), spec(**fields), None) as endpoint:

            async def one(_n: int) -> None:
                nonlocal answered
                await endpoint.ask(MESSAGES, SCHEMA, 100)
                answered += 1

            with contextlib.suppress(BudgetReached):
                await each(range(questions), 4, one)
            return endpoint

    endpoint = asyncio.run(ask())
    return answered, endpoint


def test_no_question_is_asked_that_might_pass_the_tokens(openai_server: OpenAIServer) -> None:
    openai_server.always = lambda body: label(usage=(3, 100))
    answered, endpoint = asked_within(openai_server, 40, max_tokens=1000)
    assert answered == len(openai_server.seen) == 9
    assert (endpoint.used.prompt_tokens, endpoint.used.answer_tokens) == (27, 900)


def test_no_question_is_asked_that_might_pass_the_cost(openai_server: OpenAIServer) -> None:
    openai_server.always = lambda body: label(usage=(3, 50))
    answered, endpoint = asked_within(openai_server, 40, price_in=1, price_out=10, max_cost=0.005)
    assert 7 <= answered == len(openai_server.seen) <= 9
    assert 0.0035 < (endpoint.used.cost_usd or 0) <= 0.005


PROMPT = 3  # tokens of MESSAGES, as they are guessed


@pytest.mark.parametrize(
    ("replies", "used"),
    [
        ([error(500), error(503), label(usage=(3, 20))], (2 * PROMPT + 3, 20)),
        ([BREAKS, label(usage=(3, 20))], (PROMPT + 3, 120)),
        ([error(429), label(usage=(3, 20))], (3, 20)),
        ([Reply(200, {"choices": []})], (PROMPT, 100)),
    ],
    ids=["failures", "broken", "refused", "empty"],
)
def test_what_every_try_of_a_question_may_have_used_is_counted(
    openai_server: OpenAIServer, replies: list[Reply], used: tuple[int, int]
) -> None:
    openai_server.replies = list(replies)

    async def ask() -> Endpoint:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:
            with contextlib.suppress(Unanswered):
                await endpoint.ask(MESSAGES, SCHEMA, 100)
            return endpoint

    endpoint = asyncio.run(ask())
    assert len(openai_server.seen) == len(replies)
    assert (endpoint.used.prompt_tokens, endpoint.used.answer_tokens) == used


def test_no_question_is_tried_again_when_that_might_pass_the_tokens(openai_server: OpenAIServer) -> None:
    openai_server.always = lambda body: BREAKS
    answered, endpoint = asked_within(openai_server, 4, max_tokens=250)
    assert answered == 0 and len(openai_server.seen) == 2
    assert endpoint.used.prompt_tokens + endpoint.used.answer_tokens == 2 * (PROMPT + 100)


def test_a_purse_holds_room_for_all_its_questions_until_its_end() -> None:
    async def run() -> None:
        budget = Budget(spec(max_tokens=1000), {"name": "n", "url": "http://127.0.0.1/v1", "on_this_machine": True})
        async with Purse(budget, (300, 300)) as purse:
            with pytest.raises(BudgetReached):
                await budget.hold(200, 201, wait=False)
            await purse.hold(100, 300)
            await purse.settle((100, 300), (150, 20))
            await purse.hold(200, 280)
            await purse.hold(100, 200)
            with pytest.raises(BudgetReached):
                await purse.hold(1, 100)
            await purse.settle((100, 200), (0, 0))
            await purse.settle((200, 280), (200, 280))
        await budget.hold(150, 200, wait=False)
        with pytest.raises(BudgetReached):
            await budget.hold(1, 0, wait=False)
        assert (budget.prompt_tokens, budget.answer_tokens) == (350, 300)

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_limit_of_cost_needs_a_price(openai_server: OpenAIServer) -> None:
    openai_server.url = "https://somebody.example/v1"
    with pytest.raises(Refused, match="give price_in and price_out") as caught:
        Endpoint(openai_server.given(on_this_machine=False), spec(max_cost=1), None)
    assert caught.value.field == "max_cost"


@pytest.mark.parametrize("wish", ["stop", "pause"])
def test_questions_that_hang_are_dropped_when_an_end_is_asked_for(
    openai_server: OpenAIServer, tmp_path: Path, wish: str
) -> None:
    openai_server.replies = [label()]
    openai_server.always = lambda body: HANGS
    link = Link(tmp_path, Paths(tmp_path))

    async def ask() -> None:
        async with Endpoint(openai_server.given(), spec(), None) as endpoint:

            async def one(_n: int) -> None:
                await endpoint.ask(MESSAGES, SCHEMA, 100)

            await each(range(40), 4, one)

    def when(condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.01)
        nonlocal told_at
        told_at = time.monotonic()
        link.hear(wish)

    told_at = 0.0
    told = threading.Thread(target=when, args=(lambda: openai_server.hanging == 4,))
    told.start()
    with pytest.raises(Asked) as caught:
        run_until_asked(link, ask())
    assert caught.value.what == wish
    assert time.monotonic() - told_at < 20, "an answer may take two minutes"
    told.join()
