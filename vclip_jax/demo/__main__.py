"""Serve a page to try a model in a browser; needs the extra [demo].

    vclip demo
    vclip demo --model W
    vclip demo --model W --images DIR --prompts en/fives

Drop a photograph, and choose or type prompts. The page shows scores with intervals over the
wordings, a heat map and the nearest training captions; with --images it also searches a folder by
text. Not for diagnosis.

The command prints an address with a token, and only people who have this address can open the page.
The token is random, or that of the environment variable VCLIP_DEMO_TOKEN.
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
from vclip_jax.data.choices import GATES

PORT = 7860
CAPTIONS = 5_000
"""The default of --captions: a RoBERTa-base on a CPU embeds them in two minutes, once."""
TOKEN = "VCLIP_DEMO_TOKEN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until it is interrupted, and return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("vclip_jax").setLevel(logging.INFO)
    # Delete uploads after SIGTERM too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vclip-demo-") as uploads:
        # Gradio reads these when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        status = commands.run(partial(serve, options))
    return 0 if status == commands.INTERRUPTED else status  # Ctrl-C is the normal end


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip demo", description=__doc__)
    commands.add_model(parser, default=True)
    parser.add_argument("--prompts", help="a prompt set or a JSON file (default: the model's own)")
    commands.add_calibration(parser)
    commands.add_gate(parser, GATES)
    parser.add_argument("--images", metavar="DIR", help="a folder of photographs to search by text")
    parser.add_argument(
        "--data-dir",
        metavar="D",
        help="the folder of the built training dataset (default: that of the run's config)",
    )
    parser.add_argument(
        "--captions",
        type=int,
        default=CAPTIONS,
        metavar="N",
        help="show the nearest captions among those of N training records, 0 for none "
        f"(default: {CAPTIONS})",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of cached embeddings (default: .embeddings next to the data)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, which only this machine can reach)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"port to listen on, 0 for any free port (default: {PORT})",
    )
    parser.add_argument(
        "--no-token",
        action="store_true",
        help="let in everyone who can reach the port, such as all users of this machine",
    )
    return parser


def serve(options: argparse.Namespace) -> None:
    """Load everything, then serve the page until the process is interrupted.

    Raises:
        ValueError, OSError: one line: the model, the prompts or a folder is missing, or the port is
            taken.
    """
    if not all(importlib.util.find_spec(name) for name in ("gradio", "uvicorn")):
        raise ValueError("the demo needs Gradio: pip install 'vclip_jax[demo]'")
    model = commands.chosen_model(options)
    commands.keep_compiled()
    import uvicorn

    from vclip_jax import prompts as prompts_lib
    from vclip_jax.demo import index
    from vclip_jax.demo.page import Sources, application, build
    from vclip_jax.demo.reader import guard, pixels
    from vclip_jax.predict.pretrained import load, say_step
    from vclip_jax.prompts import calibration

    given = prompts_lib.load(options.prompts) if options.prompts else None
    token = None if options.no_token else _token()
    clip = load(model, step=options.step)
    say_step(model, clip)
    prompt_set = clip.asked(given)
    calibrations = clip.calibrations
    if options.calibration == calibration.OFF:
        calibrations = ()
    elif options.calibration:
        clip.calibration_of(prompt_set, options.calibration)  # refuse it now, not on the page
        calibrations = calibration.load(options.calibration)
    captions: index.Index | str
    photographs: index.Index | str = "start the demo with --images DIR to search a folder"
    try:
        captions = index.index_training_captions(
            clip, model, options.captions, options.data_dir, options.cache
        )
    except ValueError as error:
        captions = str(error)
    if options.images:
        photographs = index.index_folder(clip, options.images, options.cache)
    with _listen(options.host, options.port) as listener:
        sources = Sources(
            clip,
            Path(model).absolute().name,
            options.prompts or prompt_set.name,
            captions,
            photographs,
            options.images or ".",
            partial(guard, pixels),
            calibrations,
            options.gate,
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
            who = "everyone who reaches it" if token is None else "everyone who has its address"
            print(f"warning: on {host}, {who} can use this page", file=sys.stderr)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        if token is not None:
            address += f"?token={token}"
        print(f"{address} (Ctrl-C ends it). Research software, not for diagnosis.", flush=True)
        uvicorn.Server(config).run([listener])


def _token() -> str:
    """Return the token of the page's address."""
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    if not re.fullmatch("[0-9A-Za-z_-]{16,}", token):
        raise ValueError(f"{TOKEN} is not valid: use at least 16 letters, digits, - and _")
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
