"""A page on this machine to try a model by hand; needs the extra [demo].

    vclip demo --model W
    vclip demo --model W --images DIR --prompts en/fives

Drop a photograph, choose prompts or type some: scores with their interval over the wordings, a heat
map, the nearest training captions; and, with --images, a search of a folder by text. Not for
diagnosis.

The address that it prints holds a token, without which nobody gets in: a random one, or that of the
environment variable VCLIP_DEMO_TOKEN.
"""

import argparse
import importlib.util
import ipaddress
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vclip_jax.console import commands

PORT = 7860
CAPTIONS = 5_000
"""Two minutes of a RoBERTa-base on a CPU, once."""
TOKEN = "VCLIP_DEMO_TOKEN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until it is interrupted; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("vclip_jax").setLevel(logging.INFO)
    # SIGTERM is to leave no upload behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vclip-demo-") as uploads:
        # Gradio reads these when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        status = commands.run(partial(serve, options))
    return 0 if status == commands.INTERRUPTED else status  # how it is ended


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip demo", description=__doc__)
    commands.add_model(parser)
    parser.add_argument("--prompts", help="a prompt set or a JSON file (default: the model's own)")
    parser.add_argument("--images", metavar="DIR", help="a folder of photographs to be searched")
    parser.add_argument(
        "--data-dir", metavar="D", help="the training data, if it is not where the run had it"
    )
    parser.add_argument(
        "--captions",
        type=int,
        default=CAPTIONS,
        metavar="N",
        help=f"embed those of so many training records, 0 for none (default: {CAPTIONS})",
    )
    parser.add_argument(
        "--cache", metavar="DIR", help="where embeddings are kept (default: beside the data)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"0 for any that is free (default: {PORT})"
    )
    parser.add_argument(
        "--no-token",
        action="store_true",
        help="let in everybody who reaches the port, such as all users of this machine",
    )
    return parser


def serve(options: argparse.Namespace) -> None:
    """Load everything, show the page and wait.

    Raises:
        ValueError, OSError: one line: something that was named is not there, or the port is taken.
    """
    if not all(importlib.util.find_spec(name) for name in ("gradio", "uvicorn")):
        raise ValueError("the demo needs Gradio: pip install 'vclip_jax[demo]'")
    import uvicorn

    from vclip_jax import prompts as prompts_lib
    from vclip_jax.demo import index
    from vclip_jax.demo.page import Sources, application, build
    from vclip_jax.demo.reader import guard, pixels
    from vclip_jax.predict.pretrained import load, say_step

    given = prompts_lib.load(options.prompts) if options.prompts else None
    token = None if options.no_token else _token()
    clip = load(options.model, step=options.step)
    say_step(options.model, clip)
    asked = clip.asked(given)
    captions: index.Index | str
    photographs: index.Index | str = "start the demo with --images DIR to search a folder"
    try:
        captions = index.index_training_captions(
            clip, options.model, options.captions, options.data_dir, options.cache
        )
    except ValueError as error:
        captions = str(error)
    if options.images:
        photographs = index.index_folder(clip, options.images, options.cache)
    with _listen(options.host, options.port) as listener:
        sources = Sources(
            clip,
            Path(options.model).absolute().name,
            options.prompts or asked.name,
            captions,
            photographs,
            options.images or ".",
            partial(guard, pixels),
        )
        hosts = {"localhost", options.host}
        if not _is_loopback(options.host):
            hosts.add(socket.gethostname())
        config = uvicorn.Config(
            application(build(sources), hosts, token),
            log_level="warning",
            timeout_graceful_shutdown=2,
            proxy_headers=False,
            server_header=False,
        )
        host, port = listener.getsockname()[:2]
        if not _is_loopback(options.host):
            who = "everybody who reaches it" if token is None else "everybody who has its address"
            print(f"warning: on {host}, {who} can use this page", file=sys.stderr)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        if token is not None:
            address += f"?token={token}"
        print(f"{address} (Ctrl-C ends it). Research software, not for diagnosis.", flush=True)
        uvicorn.Server(config).run([listener])


def _token() -> str:
    """What the page's address holds."""
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    if not re.fullmatch("[0-9A-Za-z_-]{16,}", token):
        raise ValueError(f"{TOKEN} is too short, or odd: at least 16 letters, digits, - and _")
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot listen on {host}, port {port} ({reason}): choose others with --host, --port"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    commands.start(main)
