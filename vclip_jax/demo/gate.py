"""The gate in front of the page: it lets through only requests of the page itself, with its token.

Gradio serves much more than this page uses: links to a visitor's state, files, a proxy, a
description of itself. Requests that are not listed here are refused before Gradio sees them.
"""

import hashlib
import ipaddress
import json
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from vclip_jax.demo import uploads
from vclip_jax.demo.answers import MOST_MEGABYTES

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"
ROUTES = {
    "GET": re.compile(
        r"/|/theme\.css|/favicon\.ico|/(assets|static)/[\w./-]+"
        r"|/gradio_api/(heartbeat/\w+|queue/data|upload_progress)",
        re.ASCII,
    ),
    "POST": re.compile(f"{JOIN}|{UPLOAD}"),
}
"""The paths that the page requests in a browser, as observed with Gradio 6.31."""
MOST_BYTES = {JOIN: 2**18, UPLOAD: MOST_MEGABYTES * 2**20 + 2**16}
"""The largest accepted request body: typed words with escapes; a file with its form fields."""
WAITING_FILES = 32
"""The largest number of unread uploads; further uploads are asked to try again later."""
HEADERS = {
    # Gradio's pages need inline scripts; the policy keeps browsers from asking other machines.
    "Content-Security-Policy": (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
UNTRUSTED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
"""Headers from which Gradio takes its own address; they are removed, as there is no proxy."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A refused request: the status code, and the reason in one line."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status

    def answer(self, path: str) -> Response:
        """Return the response; Gradio's client shows the `detail` of a refused question."""
        if path == JOIN:
            return JSONResponse({"detail": str(self)}, self.status)
        return PlainTextResponse(f"{self}\n", self.status)


@dataclass(frozen=True)
class Gate:
    """An ASGI application that passes only requests of the page on to another application.

    Attributes:
        application: Gradio's application.
        hosts: the host names, in lower case, to which the page answers, besides numeric addresses.
            Any other name could be that of a website that a visitor has open and that points its
            name at this machine (DNS rebinding).
        token: the token that a visitor's first address must have; None lets everyone in.
        folder: the folder of uploads.
    """

    application: Application
    hosts: frozenset[str]
    token: str | None
    folder: Path

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer an ASGI request, or pass it on to the application."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            send = _with_headers(send)
            with suppress(ClientDisconnect):  # nobody is left to answer
                try:
                    answer = self._answer(Request(scope))
                    if answer is None:
                        scope, receive = await self._checked(scope, receive)
                except Refused as refused:
                    answer = refused.answer(scope["path"])
                await (answer or self.application)(scope, receive, send)

    def _answer(self, request: Request) -> Response | None:
        """Check a request; return the response to a first request with the token, else None."""
        headers, path = request.headers, request.scope["path"]
        if not _is_host(headers.getlist("host"), self.hosts):
            raise Refused(400, "the page does not answer to this name: open the printed address")
        if not _from_the_page(headers):
            raise Refused(403, "another website sent this: paste the page's address by hand")
        if self.token is not None:
            given = request.query_params.get("token", "")
            if (request.method, path) == ("GET", "/") and _same(given, self.token):
                return self._welcome(self.token)
            if not _same(request.cookies.get(_cookie(self.token), ""), self.token):
                raise Refused(403, "open the address that the demo printed, with its token")
        route = ROUTES.get(request.method)
        if route is None or not route.fullmatch(path) or ".." in path:
            raise Refused(404, "the page has nothing of this name")
        return None

    @staticmethod
    def _welcome(token: str) -> Response:
        """Redirect to the page, so that the token stays neither in the address bar nor in links."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_cookie(token), token, httponly=True, samesite="strict")
        return answer

    async def _checked(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """Return the request without the parts that Gradio must not see."""
        headers = MutableHeaders(raw=[h for h in scope["headers"] if h[0] not in UNTRUSTED])
        path = scope["path"]
        scope = {**scope, "headers": headers.raw}
        if path == "/":
            scope["query_string"] = b""  # it could set the initial state
        if scope["method"] != "POST":
            return scope, receive
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not re.fullmatch("[0-9]{1,12}", length):
            raise Refused(411, "the request has no Content-Length")
        if int(length) > MOST_BYTES[path]:
            raise Refused(413, f"the request has more than the {MOST_BYTES[path]} bytes allowed")
        if path == UPLOAD:
            if uploads.count(self.folder) >= WAITING_FILES:
                raise Refused(503, "too many uploads at once: try again in a minute")
            return scope, receive
        body = question(await Request(scope, receive).body(), self.folder)
        headers["content-length"] = str(len(body))
        return {**scope, "headers": headers.raw}, _body_first(body, receive)


def question(body: bytes, folder: Path) -> bytes:
    """Rebuild a visitor's question from only the values that the page sends.

    Args:
        body: JSON as Gradio's client sends it to `JOIN`.
        folder: the folder of uploads.

    Raises:
        Refused: the body holds other values, such as the path of a file that was not uploaded.
    """
    try:
        sent = json.loads(body)
        checked = {
            "data": [_value(value, folder) for value in sent["data"]],
            "fn_index": _whole(sent["fn_index"]),
            "session_hash": re.fullmatch("[0-9a-zA-Z]{1,64}", sent["session_hash"])[0],  # type: ignore[index]
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(
            400, "the page does not send this, or the upload is gone: drop the photograph again"
        ) from None
    return json.dumps(checked).encode()


def _value(value: Any, folder: Path) -> Any:
    """Return a text, a number or None unchanged; of an upload, return only its path."""
    if value is None or isinstance(value, str | int | float):
        return value
    path = uploads.inside(folder, value["path"])
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _is_host(given: list[str], names: frozenset[str]) -> bool:
    if len(given) != 1:
        return False
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]*)?", given[0].lower())
    if match is None:
        return False
    name = match[1] or match[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def _from_the_page(headers: Headers) -> bool:
    """Return False if a browser says that another website sent the request.

    Programs other than browsers send no such headers.
    """
    try:
        origins = {urlsplit(origin).netloc.lower() for origin in headers.getlist("origin")}
    except ValueError:
        return False
    sites = set(headers.getlist("sec-fetch-site"))
    return origins <= {headers["host"].lower()} and sites <= {"same-origin", "none"}


def _cookie(token: str) -> str:
    # Browsers share cookies between the ports of a host, so the name depends on the token.
    return f"vclip-demo-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers.update(HEADERS)
            message = {**message, "headers": headers.raw}
        await send(message)

    return sent


def _body_first(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def received() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return received
