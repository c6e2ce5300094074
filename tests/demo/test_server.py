"""The demo as it is reached: requests to a server that was really started."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import vclip_jax
from vclip_jax.data.images.opening import ImageError
from vclip_jax.demo import reader, uploads

pytest.importorskip("gradio", reason="needs the extra [demo]")
import httpx  # Gradio requires it

SECRET = "the owner's own file"
# Python imports this on its start: names that are looked up are written down.
SPY = """
import os, socket
look_up = socket.getaddrinfo
def spied(name, *arguments, **options):
    with open(os.environ["SPY"], "a") as file:
        print(name, file=file)
    return look_up(name, *arguments, **options)
socket.getaddrinfo = spied
try:
    spied("127.0.0.1", 1)
except OSError:
    pass
"""


class Visitor(httpx.Client):
    """Somebody at the page, with or without its token."""

    def ask(self, function: int, data: list, session: str = "visitor") -> str:
        """Whether a function of the page is asked (else the status), and what comes of it."""
        question = {"data": data, "fn_index": function, "session_hash": session, "trigger_id": 1}
        answer = self.post("/gradio_api/queue/join", json=question)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text}"
        with self.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as events:
            for line in events.iter_lines():
                if '"process_completed"' in line:
                    return str(json.loads(line.removeprefix("data: "))["output"])
        return "nothing"

    def upload(self, content: bytes, name: str = "a.jpg") -> dict:
        answer = self.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200
        return a_file(answer.json()[0])


def a_file(path) -> dict:
    return {
        "path": os.fspath(path) if isinstance(path, Path) else path,
        "meta": {"_type": "gradio.FileData"},
    }


def picture(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((12, 12, 1), np.uint8))).save(buffer, "JPEG")
    return buffer.getvalue()


class Demo:
    """A server: its address, the token, and where it keeps uploads."""

    def __init__(self, address: str, folder: Path, names: Path | None = None):
        self.address, self.folder, self.names = address, folder, names
        parts = urlsplit(address)
        self.host, self.port = parts.hostname, parts.port
        self.base = f"http://{parts.netloc}"
        self.token = parts.query.removeprefix("token=")

    def visitor(self, come_in: bool = True, **options) -> Visitor:
        visitor = Visitor(base_url=self.base, timeout=120, trust_env=False, **options)
        if come_in:
            assert visitor.get(self.address, follow_redirects=True).status_code == 200
        return visitor

    def contents(self) -> list[bytes]:
        """Of the files that are kept (Gradio leaves an empty one for each upload)."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [content for path in files if (content := path.read_bytes())]


@pytest.fixture(scope="module")
def demo(portable_folder, tmp_path_factory) -> Iterator[Demo]:
    """The command itself."""
    root = tmp_path_factory.mktemp("demo")
    (root / "spy").mkdir()
    (root / "spy" / "sitecustomize.py").write_text(SPY)
    (root / "uploads").mkdir()
    (root / "secret.jpg").write_text(SECRET)
    path = f"{root / 'spy'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "vclip_jax.demo", "--model", portable_folder, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {
            "TMPDIR": str(root / "uploads"),
            "PYTHONPATH": path,
            "SPY": str(root / "names"),
            "SECRET": SECRET,
        },
    )
    try:
        yield Demo(process.stdout.readline().split(" ")[0], root / "uploads", root / "names")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert list((root / "uploads").iterdir()) == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def visitor(demo):
    visitor = demo.visitor()
    yield visitor
    visitor.close()


@contextmanager
def served(application) -> Iterator[str]:
    """An ASGI application at an address of this machine."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def page(portable_folder, tmp_path, monkeypatch):
    """Makes the page of a demo in this process; uploads lie in `tmp_path`/uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    from vclip_jax.demo.page import Sources, build

    clip = vclip_jax.load(portable_folder)

    def make(read=reader.pixels):
        return build(Sources(clip, "m", "zh/fives", "no captions", "no folder", ".", read))

    return make


READ, SCORE, FUNCTIONS = 1, 2, range(11)
"""The function that reads an upload, the one that scores it, and all."""


# --- A visitor gets an answer.


def test_an_upload_is_read_and_deleted(demo, visitor):
    given = visitor.upload(picture())
    assert "What the model sees" in visitor.ask(READ, [given])
    assert demo.contents() == []
    again = visitor.ask(READ, [given])
    assert again.startswith("400 ")
    assert "drop the photograph again" in again
    assert "cannot read the image" in visitor.ask(READ, [visitor.upload(b"no picture")])
    assert demo.contents() == []


def test_a_photograph_is_forgotten_when_its_visitor_leaves(visitor):
    with visitor.stream("GET", "/gradio_api/heartbeat/leaves") as page:
        lines = page.iter_lines()  # kept: without it the connection is closed
        assert next(lines) == "data: ALIVE"
        assert "What" in visitor.ask(READ, [visitor.upload(picture())], "leaves")
        assert "vc-scores" in visitor.ask(SCORE, [None, "zh/fives", ""], "leaves")
    deadline = time.monotonic() + 30
    while "drop a photograph first" not in visitor.ask(SCORE, [None, "zh/fives", ""], "leaves"):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_photograph_is_forgotten_after_a_while_and_the_last_ones_alone_are_kept(
    page, monkeypatch
):
    from vclip_jax.demo import page as module
    from vclip_jax.demo.page import application

    monkeypatch.setattr(module, "FORGET_SECONDS", 5)
    monkeypatch.setattr(module, "SESSIONS", 2)
    first = "drop a photograph first"
    served_page = served(application(page(), [], None))
    with served_page as address, Visitor(base_url=address, timeout=120) as visitor:
        for name in ("one", "two", "three"):
            began = time.monotonic()
            visitor.ask(READ, [visitor.upload(picture())], name)
            answer = visitor.ask(SCORE, [None, "zh/fives", ""], name)
            assert "vc-scores" in answer or time.monotonic() > began + 5
        assert first in visitor.ask(SCORE, [None, "zh/fives", ""], "one")
        time.sleep(7)
        assert first in visitor.ask(SCORE, [None, "zh/fives", ""], "three")


# --- Nothing of the owner's comes out.


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_path_that_was_not_uploaded_is_refused(demo, visitor, function):
    secret = str(demo.folder.parent / "secret.jpg")
    given = visitor.upload(b"1")
    paths = (
        secret,
        "/proc/self/environ",
        "/etc/passwd",
        f"{given['path']}/../../../../secret.jpg",
        Path(given["path"]).parent,
        demo.folder,
        "",
        "\0",
        5,
        None,
        "http://attacker.example/a.jpg",
        "file:///etc/passwd",
    )
    odd = [secret], [a_file(secret)], {"x": a_file(secret)}, {"url": secret}, [[given]]
    for value in (*map(a_file, paths), *odd):
        assert visitor.ask(function, [value] * 3, f"v{function}").startswith("400 ")
    assert visitor.get(f"/gradio_api/deep_link?session_hash=v{function}").status_code == 404
    Path(given["path"]).unlink()
    assert demo.contents() == []


def test_what_else_is_said_of_an_upload_is_not_listened_to(demo, visitor):
    secret = str(demo.folder.parent / "secret.jpg")
    given = visitor.upload(picture())
    more = {"url": secret, "orig_name": secret, "is_stream": True, "x": [a_file(secret)]}
    answer = visitor.ask(READ, [given | more])
    assert "What the model sees" in answer
    assert secret not in answer
    assert demo.contents() == []


def test_gradio_itself_copies_nothing_that_was_not_uploaded(page, tmp_path):
    """The second door: the page without its gate."""
    from vclip_jax.demo.page import mounted

    (tmp_path / "secret.jpg").write_text(SECRET)
    with served(mounted(page())) as address, Visitor(base_url=address, timeout=60) as visitor:
        for function in range(6):
            visitor.ask(function, [a_file(tmp_path / "secret.jpg")] * 3, f"v{function}")
            visitor.get(f"/gradio_api/deep_link?session_hash=v{function}")
    kept = [path.read_text() for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert not [content for content in kept if SECRET in content]


def test_a_prompt_set_is_one_of_those_that_the_page_offers(visitor):
    for choice in ("/etc/passwd", "../../secret.jpg", "zh/none"):
        assert "not in the list of choices" in visitor.ask(2, [None, choice, ""])


# --- Only what the page asks for is there.


@pytest.mark.parametrize(
    "path",
    [
        "file=/etc/passwd",
        "file=http://attacker.example/a",
        "file/etc/passwd",
        "deep_link",
        "proxy=http://attacker.example/a",
        "proxy=https://attacker.hf.space/a",
        "openapi.json",
        "info",
        "user",
        "token",
        "app_id",
        "login_check",
        "queue/status",
        "startup-events",
        "runs",
        "custom_component/a/client/b/c",
        "stream/a/b/c/playlist.m3u8",
        "call/x/y",
        "theme.css",
        "vibe-code",
        "dev/reload",
        "heartbeat/a/../../info",
        "../config",
        "mcp/sse",
    ],
)
def test_gradios_other_routes_are_not_there(visitor, path):
    assert visitor.get(f"/gradio_api/{path}").status_code == 404
    assert visitor.head(f"/gradio_api/{path}").status_code == 404
    assert visitor.post(f"/gradio_api/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "config",
        "config/",
        "monitoring",
        "monitoring/summary",
        "login",
        "logout",
        "docs",
        "manifest.json",
        "pwa_icon",
        "svelte/x",
        "assets/../config",
        "robots.txt",
        "openapi.json",
        "static/../../../../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/routes.py",
    ],
)
def test_nor_are_those_of_its_applications(demo, visitor, path):
    assert visitor.get(f"/{path}").status_code == 404
    assert b" 404 " in raw(demo, f"GET /{path} HTTP/1.1", f"Cookie: {cookie(visitor)}")


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"])
def test_other_methods_are_refused(visitor, method):
    for path in ("/", "/gradio_api/upload", "/gradio_api/queue/join"):
        assert visitor.request(method, path).status_code == 404


def test_an_address_cannot_name_a_state_to_begin_with(visitor):
    plain = re.sub(r"\b[0-9a-f]{8,}\b", "", visitor.get("/").text)
    odd = visitor.get("/?deep_link=..%2F..&view=api&__theme=dark")
    assert re.sub(r"\b[0-9a-f]{8,}\b", "", odd.text) == plain


def test_no_name_is_looked_up_for_a_visitor(demo, visitor):
    url = "http://attacker.example/a.jpg"
    for path in ("file=", "file/", "proxy=", "file=%20", "custom_component/"):
        visitor.get(f"/gradio_api/{path}{url}")
    for function in FUNCTIONS:
        visitor.ask(function, [a_file(url) | {"url": url}] * 3)
    visitor.get("/", headers={"X-Forwarded-Host": "attacker.example", "X-Gradio-Server": url})
    # The spy itself; no other name, of Gradio's makers neither.
    assert set(demo.names.read_text().split()) == {"127.0.0.1"}


def test_a_header_does_not_say_where_the_page_is(visitor):
    forged = {"X-Forwarded-Host": "attacker.example", "X-Forwarded-Proto": "https"}
    answer = visitor.get("/", headers=forged | {"X-Gradio-Server": "http://attacker.example"})
    assert answer.status_code == 200
    assert "attacker.example" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"data": ' + b"[" * 100_000,
        b"\xff",
        b"null",
        b'{"data": [], "fn_index": 0}',
        b'{"data": [], "fn_index": "x", "session_hash": "a"}',
        b'{"data": [], "fn_index": 0, "session_hash": "../a"}',
        b'{"data": 5, "fn_index": 0, "session_hash": "a"}',
        b'{"data": [[]], "fn_index": 0, "session_hash": "a"}',
        b'{"data": [{}], "fn_index": 0, "session_hash": "a"}',
        b'{"data": [], "fn_index": 1e999, "session_hash": "a"}',
    ],
)
def test_questions_of_another_form_are_refused(visitor, body):
    answer = visitor.post("/gradio_api/queue/join", content=body)
    assert answer.status_code == 400


def test_what_is_too_large_is_refused_before_it_is_read(demo, visitor):
    for path, size in (("queue/join", 2**18 + 1), ("upload", 21 * 2**20)):
        answer = raw(
            demo,
            f"POST /gradio_api/{path} HTTP/1.1",
            f"Content-Length: {size}",
            f"Cookie: {cookie(visitor)}",
            "Content-Type: multipart/form-data; boundary=x",
        )
        assert b" 413 " in answer
        chunked = visitor.post(f"/gradio_api/{path}", content=iter([b"x"]))
        assert chunked.status_code == 411
    large = visitor.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(20 * 2**20 + 1))})
    assert large.status_code == 413
    assert demo.contents() == []


# --- The token.


EVERYWHERE = (
    ("GET", "/"),
    ("GET", "/theme.css"),
    ("GET", "/favicon.ico"),
    ("GET", "/assets/x.js"),
    ("GET", "/gradio_api/heartbeat/a"),
    ("GET", "/gradio_api/queue/data?session_hash=a"),
    ("GET", "/gradio_api/upload_progress?upload_id=a"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/config"),
    ("GET", "/gradio_api/info"),
    ("OPTIONS", "/gradio_api/upload"),
    ("GET", "/none"),
)


def test_without_the_token_there_is_nothing(demo):
    assert len(demo.token) >= 43
    name = next(iter(demo.visitor().cookies))
    with demo.visitor(come_in=False) as stranger:
        for cookies in ({}, {name: ""}, {name: demo.token[:-1]}, {"token": demo.token}):
            for method, path in EVERYWHERE:
                both = "&" if "?" in path else "?"
                for query in ("", f"{both}token=", f"{both}token={demo.token[:-1]}x"):
                    stranger.cookies = cookies
                    answer = stranger.request(method, f"{path}{query}")
                    assert answer.status_code == 403
                    assert "with its token" in answer.text
                    assert "set-cookie" not in answer.headers
        for method, path in EVERYWHERE[1:]:  # the token counts at the page itself alone
            both = "&" if "?" in path else "?"
            assert stranger.request(method, f"{path}{both}token={demo.token}").status_code == 403


def test_the_token_becomes_a_cookie_that_only_the_page_sends(demo):
    with demo.visitor(come_in=False) as visitor:
        answer = visitor.get(demo.address)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        words = {word.strip().lower() for word in answer.headers["set-cookie"].split(";")}
        assert {"httponly", "samesite=strict", "path=/"} <= words
        assert answer.headers["referrer-policy"] == "no-referrer"
        page = visitor.get("/")
        assert page.status_code == 200
        assert demo.token not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'self' ")
        assert "fonts.googleapis.com" not in page.text


def test_a_token_can_be_chosen_and_left_out(page, monkeypatch):
    from vclip_jax.demo import __main__ as command
    from vclip_jax.demo.page import application

    with served(application(page(), ["localhost"], None)) as address:
        assert httpx.get(address).status_code == 200
        assert httpx.get(address, headers={"Host": "attacker.example"}).status_code == 400
    monkeypatch.setenv("VCLIP_DEMO_TOKEN", "0123456789abcdef")
    assert command._token() == "0123456789abcdef"
    for bad in ("0123456789abcde", "0123456789abcdef g", "0123456789abcdeé"):
        monkeypatch.setenv("VCLIP_DEMO_TOKEN", bad)
        with pytest.raises(ValueError, match="at least 16 letters"):
            command._token()
    monkeypatch.delenv("VCLIP_DEMO_TOKEN")
    assert command._token() != command._token()


# --- Other websites.


def test_other_websites_are_refused(demo, visitor):
    foreign = [
        {"Origin": origin}
        for origin in (
            "http://attacker.example",
            "null",
            "http://localhost:9999",
            "http://localhost",
            f"http://127.0.0.1:{demo.port + 1}",
            f"http://localhost:{demo.port}",
            "http://[",
            "",
            f"http://127.0.0.1:{demo.port}.attacker.example",
        )
    ] + [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "odd")]
    for headers in foreign:
        for method, path in EVERYWHERE:
            answer = visitor.request(method, path, headers=headers)
            assert answer.status_code == 403, (headers, path)
            assert "access-control-allow-origin" not in answer.headers
        files = {"files": ("a.jpg", picture())}
        assert visitor.post("/gradio_api/upload", files=files, headers=headers).status_code == 403
        assert visitor.get(demo.address, headers=headers).status_code == 403
    assert demo.contents() == []


def test_the_page_itself_and_a_person_are_let_in(demo, visitor):
    for headers in (
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": demo.base},
    ):
        assert visitor.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9", 200),
        ("localhost:9", 200),
        ("LOCALHOST", 200),
        ("[::1]:9", 200),
        ("10.0.0.7", 200),
        ("attacker.example", 400),
        ("", 400),
        ("localhost.attacker.example", 400),
        ("127.0.0.1.attacker.example", 400),
        ("localhost@attacker.example", 400),
        ("a:b:c", 400),
        ("[::1", 400),
        ("localhost.", 400),
    ],
)
def test_a_name_that_is_not_the_pages_is_refused(demo, visitor, host, status):
    answer = raw(demo, "GET / HTTP/1.1", f"Cookie: {cookie(visitor)}", host=host)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def cookie(visitor: Visitor) -> str:
    return "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())


def raw(demo: Demo, *lines: str, host: str = "localhost") -> bytes:
    """The first bytes of the answer to a request, exactly as it is written."""
    with socket.create_connection((demo.host, demo.port), timeout=60) as connection:
        request = (*lines, f"Host: {host}", "Connection: close", "", "")
        connection.sendall("\r\n".join(request).encode())
        return connection.recv(100)


# --- Uploads that are not finished, and those that take long.


def half_an_upload(demo: Demo, visitor: Visitor) -> None:
    head = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    with socket.create_connection((demo.host, demo.port), timeout=60) as connection:
        request = (
            "POST /gradio_api/upload HTTP/1.1",
            "Host: localhost",
            "Content-Length: 100000",
            f"Cookie: {cookie(visitor)}",
            "Content-Type: multipart/form-data; boundary=x",
            "",
            head + "half a photograph",
        )
        connection.sendall("\r\n".join(request).encode())
        deadline = time.monotonic() + 20
        while not any(path.name.startswith("tmp") for path in demo.folder.rglob("*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow  # it takes the minute
def test_an_upload_that_was_cut_off_is_gone_within_a_minute(demo, visitor):
    half_an_upload(demo, visitor)
    end = time.monotonic() + 60
    while any(path.name.startswith("tmp") for path in demo.folder.rglob("*")):
        assert time.monotonic() < end
        time.sleep(1)


def test_an_upload_that_was_cut_off_is_no_error_of_the_server(tmp_path):
    from starlette.requests import ClientDisconnect

    from vclip_jax.demo.gate import UPLOAD, Gate

    async def application(scope, receive, send):
        await receive()
        raise ClientDisconnect

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(f"nobody is there to hear {message}")

    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": UPLOAD, "headers": headers}
    scope |= {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}
    gate = Gate(application, frozenset({"127.0.0.1"}), None, tmp_path)
    asyncio.run(gate(scope, receive, send))


def test_many_uploads_that_nobody_reads_are_refused(page, tmp_path):
    from vclip_jax.demo import gate
    from vclip_jax.demo.page import application

    served_page = served(application(page(), [], None))
    with served_page as address, Visitor(base_url=address, timeout=60) as visitor:
        for number in range(gate.WAITING_FILES):
            visitor.upload(b"%d" % number)
        more = visitor.post("/gradio_api/upload", files={"files": ("a.jpg", b"more")})
        assert more.status_code == 503
    assert uploads.count(tmp_path / "uploads") == gate.WAITING_FILES


def test_more_visitors_than_the_queue_holds_are_asked_to_come_back(page):
    from vclip_jax.demo.page import READERS, WAITING, application

    answer = threading.Event()

    def read(*_):
        answer.wait(60)
        raise ImageError("this file")

    served_page = served(application(page(read), [], None))
    with served_page as address, Visitor(base_url=address, timeout=60) as visitor:
        codes = []
        for number in range(READERS + WAITING + 1):
            body = {"data": [visitor.upload(b"%d" % number)], "fn_index": READ}
            asked = visitor.post(
                "/gradio_api/queue/join", json=body | {"session_hash": f"v{number}"}
            )
            codes.append(asked.status_code)
            time.sleep(0.2)  # for the first ones to leave the queue
        answer.set()
    assert codes == [200] * (READERS + WAITING) + [503]


def test_a_picture_that_takes_long_does_not_stop_the_next(page):
    from vclip_jax.demo.page import application

    started = threading.Event()

    def read(data: bytes, *rest):
        if data != b"slow":
            return reader.guard(reader.pixels, data, *rest)
        started.set()
        return reader.guard(time.sleep, 600)

    done = {}
    with served(application(page(read), [], None)) as address:

        def visit(name: str, content: bytes) -> None:
            with Visitor(base_url=address, timeout=120) as visitor:
                answer = visitor.ask(READ, [visitor.upload(content)], name)
                done[name] = answer

        visit("before", picture())  # compiles the image tower
        first = threading.Thread(target=visit, args=("slow", b"slow"))
        first.start()
        assert started.wait(60)
        for name in ("next", "third"):
            visit(name, picture(1))
            assert "What the model sees" in done[name]
        assert "slow" not in done
        first.join()
        assert "takes more than 20 seconds" in done["slow"]
        visit("after", picture(2))
        assert "What the model sees" in done["after"]
