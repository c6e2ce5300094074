"""Pushing a portable folder, against a server on this machine that answers as the Hub does."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

import vclip_jax
from vclip_jax.interop import folder
from vclip_jax.interop.__main__ import main
from vclip_jax.interop.export import hub, stablehlo

REPOSITORY = "eye-lab/retina"
TOKEN = "hf_of_the_test"


class Handler(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP API as one commit and one download need."""

    hub: SimpleNamespace

    def do_POST(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append((path, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            self.hub.card = json.loads(body)["content"]
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular" if file["path"].endswith((".md", ".json")) else "lfs",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            return self.commit([json.loads(line) for line in body.splitlines()])
        return self.answer(404, {"error": f"no {path}"})

    def create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.private:
            there = {"error": "You already created it", "url": f"{self.hub.url}/{name}"}
            return self.answer(409, there)
        self.hub.private[name] = asked.get("visibility") == "private" or asked.get("private", False)
        return self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def commit(self, lines):
        self.hub.commits += 1
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.objects[value["oid"]]
        url = f"{self.hub.url}/{REPOSITORY}/commit/{'a' * 40}"
        return self.answer(200, {"commitUrl": url, "commitOid": "a" * 40})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = urlsplit(self.path).path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self.answer(200, {})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path.startswith(f"/{REPOSITORY}/resolve/"):
            return self.send(self.hub.files.get(path.rpartition("/")[2]))
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "b" * 40}
                for name, data in self.hub.files.items()
            ]
            return self.answer(200, tree)
        if path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            private = self.hub.private.get(REPOSITORY, False)
            info = {"id": REPOSITORY, "private": private, "sha": "a" * 40, "siblings": siblings}
            return self.answer(200, info)
        return self.answer(404, {"error": f"no {path}"})

    do_HEAD = do_GET

    def answer(self, status, content):
        self.reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, content):
        if content is None:
            return self.answer(404, {"error": "Entry not found"})
        etag = hashlib.sha256(content).hexdigest()
        return self.reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": "a" * 40})

    def reply(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The stand-in's state; the Hub's client in this process talks to it."""
    state = SimpleNamespace(files={}, objects={}, private={}, asked=[], commits=0, card="", url="")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": state}))
    state.url = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield state
    listening.shutdown()
    listening.server_close()


def test_what_is_pushed_is_what_is_pulled(server, portable_folder, tmp_path):
    """In a process of its own, whose environment names the server: the client reads it once."""
    program = (
        "import sys, vclip_jax; from vclip_jax.interop.__main__ import main; "
        "assert main(sys.argv[1:]) == 0; "
        "print(vclip_jax.load('hub:' + sys.argv[-1], dtype='float32').digest)"
    )
    command = ["push", "--private", "--model", str(portable_folder), "--repo", REPOSITORY]
    changes = {
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    completed = subprocess.run(
        [sys.executable, "-c", program, *command],
        env=os.environ | changes,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    url, fingerprint = completed.stdout.split()
    assert url.startswith(f"{server.url}/{REPOSITORY}/commit/")
    assert fingerprint == vclip_jax.load(portable_folder, dtype="float32").digest
    assert TOKEN not in completed.stdout + completed.stderr
    assert server.private == {REPOSITORY: True}


def test_one_commit_has_the_models_files_and_no_others(server, portable_folder, tmp_path):
    for path in portable_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "patients.csv").write_text("not for the Hub")
    hub.push(tmp_path, REPOSITORY)
    assert server.files == {path.name: path.read_bytes() for path in portable_folder.iterdir()}
    assert server.commits == 1
    assert server.private == {REPOSITORY: False}
    assert server.card == (portable_folder / "README.md").read_text()


def test_private_is_not_pushed_into_the_public(server, portable_folder):
    server.private[REPOSITORY] = False
    with pytest.raises(ValueError, match=r"is public: .* nothing was uploaded"):
        hub.push(portable_folder, REPOSITORY, private=True)
    assert not server.files
    assert not server.objects
    hub.push(portable_folder, REPOSITORY)
    server.private[REPOSITORY] = True
    hub.push(portable_folder, REPOSITORY, private=True)
    assert server.commits == 2


def test_exported_towers_go_along_unless_they_are_of_other_weights(
    server, portable_folder, tiny_weights, tokenizer, tmp_path
):
    weights, words = folder.load(portable_folder)
    stablehlo.save(tmp_path, weights, words, card="---\nlanguage: zh\n---\n")
    hub.push(tmp_path, REPOSITORY)
    towers = {"image.stablehlo", "text.stablehlo", "stablehlo.json"}
    assert set(server.files) == set(folder.FILES) | towers
    folder.save(tmp_path, tiny_weights(seed=5), tokenizer, origin="a test", overwrite=True)
    with pytest.raises(ValueError, match="made from other weights"):
        hub.push(tmp_path, REPOSITORY)
    assert server.commits == 1


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("hf_wrong", REPOSITORY, "HF_TOKEN"),
        (None, REPOSITORY, "HF_TOKEN"),
        (TOKEN, "retina", "OWNER/NAME"),
    ],
)
def test_refusals_are_one_line_without_the_token(
    server, portable_folder, monkeypatch, capsys, token, repository, message
):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
    assert main(["push", "--model", str(portable_folder), "--repo", repository]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert str(token) not in captured.err
    assert not server.files


def test_a_workdir_is_told_to_be_exported_first(server, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    assert main(["push", "--model", str(tmp_path), "--repo", REPOSITORY]) == 1
    assert "export --format safetensors" in capsys.readouterr().err
    assert not server.asked
