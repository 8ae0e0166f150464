"""HTTP: one request and its answer, or a stream of events. What goes wrong becomes one of our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio import routes
from mistudio.address import UNIX, Address, is_in_the_open, understand_each_other
from mistudio.errors import Unreachable, VersionMismatch, refusal
from mistudiod import __version__
from mistudiod.socket_path import reachable

if TYPE_CHECKING:
    import ssl

    import httpx

KEY = "Idempotency-Key"
_CONNECT_S = 10.0
_ANSWER_S = 60.0  # a preview may take 20
_SILENCE_S = 45.0  # on the event stream, which has a ping every 15


class Wire:
    """The connections to one studio, made when they are first needed."""

    def __init__(self, address: Address) -> None:
        self.address, self.url = address, address.url
        self._opened: httpx.Client | None = None
        self._looked = False
        self._reached = contextlib.ExitStack()

    def close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened, self._looked = None, False
        self._reached.close()

    def ask(self, route: str, /, query: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """The JSON of the answer; None when it has none. Options as of ``send``."""
        return self._read(self.send(route, query, **options))

    def send(
        self,
        route: str,
        /,
        query: Mapping[str, Any] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float | None = _ANSWER_S,
        look: bool = True,
        **parts: object,
    ) -> httpx.Response:
        """``limit_s``: how long it may take, None: as long as it does. Raises ApiError, Unreachable, TimeoutError.

        ``look``: before the first use a look at who answers, which wants a token where tokens are needed.
        """
        import httpx

        method, path = routes.request(route, **parts)
        http = self._http(look)
        options: dict[str, Any] = {"params": query, "json": body, "content": content, "headers": headers}
        options["timeout"] = httpx.Timeout(limit_s, connect=_CONNECT_S)
        try:
            try:
                response = http.request(method, path, **options)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # It broke off after the request was on its way (a kept connection may be that of an earlier daemon).
                # Again where that does no harm: the key makes of two submissions one.
                if method != "GET" and KEY not in (headers or {}):
                    raise
                response = http.request(method, path, **options)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise TimeoutError(f"the studio at {self.url} did not answer within {limit_s:.0f} s") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._refuse(response)
        return response

    @contextlib.contextmanager
    def stream(
        self,
        route: str,
        /,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        silence_s: float = _SILENCE_S,
        **parts: object,
    ) -> Iterator[Iterator[bytes]]:
        """The body of the answer as it comes; who leaves it hangs up. Raises ApiError, Unreachable.

        ``silence_s``: how long nothing may come.
        """
        import httpx

        method, path = routes.request(route, **parts)
        http = self._http()
        limits = httpx.Timeout(_CONNECT_S, read=silence_s)
        try:
            with http.stream(method, path, params=query, headers=headers, json=body, timeout=limits) as response:
                if not response.is_success:
                    response.read()
                    self._refuse(response)
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _http(self, look: bool = True) -> httpx.Client:
        if self._opened is None:
            import httpx

            over = self._over()
            token = None if over else self.address.token  # the socket's own permissions let this user in
            # No proxies from the environment: a studio is on this machine or near it. Certificates take 0.2 s to load.
            http = httpx.Client(
                base_url="http://localhost" if over else self.url, transport=over, trust_env=False,
                verify=self._verified(),
            )  # fmt: skip
            self._opened = http
            if token:
                try:
                    self._look_for_tls(http)
                except BaseException:
                    self.close()
                    raise
                http.headers["Authorization"] = f"Bearer {token}"
        if look and not self._looked:
            self._looked = True
            try:
                self._check(self.ask("status"))
            except BaseException:
                self.close()
                raise
        return self._opened

    def _over(self) -> httpx.HTTPTransport | None:
        """A UNIX socket; else None. Raises Unreachable."""
        import httpx

        if not self.url.startswith(UNIX):
            return None
        try:
            path = self._reached.enter_context(reachable(Path(self.url.removeprefix(UNIX))))
        except OSError as error:
            raise self._unreachable(error) from error
        return httpx.HTTPTransport(uds=path)

    def _look_for_tls(self, http: httpx.Client) -> None:
        """A token must not be said in the open to a studio that speaks HTTPS only. Raises Unreachable."""
        import httpx

        if not is_in_the_open(self.url):
            return
        try:
            self._refuse_plain(http.head("/", timeout=_CONNECT_S))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _verified(self) -> ssl.SSLContext | bool:
        """How TLS knows whom it talks to; without TLS nothing is loaded."""
        if self.address.fingerprint is None:
            return self.url.startswith("https:")
        from mistudio.pinned import Pinned

        return Pinned(self.url, self.address.fingerprint)

    def _check(self, status: Any) -> None:
        if not isinstance(status, dict) or status.get("name") != "mistudio":
            raise self._no_studio()
        theirs = str(status.get("version"))
        if not understand_each_other(__version__, theirs):
            raise VersionMismatch(
                f"the studio at {self.url} is version {theirs}, this client {__version__}; install the same of both"
            )

    def _read(self, response: httpx.Response) -> Any:
        if response.status_code == 204:
            return None
        try:
            return response.json()
        except ValueError:
            raise self._no_studio() from None

    def _refuse(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        self._refuse_plain(response)
        try:
            error = dict(response.json()["error"])
            if response.status_code == 401:
                error["message"] = self._about_the_token(str(error["message"]))
            refused = refusal(error, response.status_code)
        except (ValueError, KeyError, TypeError):
            raise self._no_studio() from None
        raise refused

    def _refuse_plain(self, response: httpx.Response) -> None:
        if response.headers.get("Location", "").startswith("https:"):
            raise Unreachable(
                f"{self.url} speaks HTTPS only: pair with it (mistudio context add NAME HOST --pair CODE)"
            )

    def _about_the_token(self, message: str) -> str:
        how = "give one with mistudio context add NAME HOST, or in MISTUDIO_TOKEN"
        return f"{message}; {how}" if self.address.token else f"a token is needed at {self.url}: {how}"

    def _no_studio(self) -> Unreachable:
        return Unreachable(f"what answers at {self.url} is not a studio; is the port right?")

    def _unreachable(self, error: Exception) -> Unreachable:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Unreachable(
                f"the certificate of {self.url} is not known here: pair with the studio (mistudio context add NAME "
                "HOST --pair CODE), or give its fingerprint in MISTUDIO_FINGERPRINT"
            )
        return Unreachable(f"no studio answers at {self.url}; start it with ./start-mistudio.sh")
