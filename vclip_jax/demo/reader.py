"""Uploads are decoded in processes of their own, each within a time limit.

A picture that takes long, or that brings a decoder down, takes neither the page nor the next
visitor's picture along. This module is what those processes import: it must not bring JAX.
"""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images.decode import ImageError, decode
from vclip_jax.data.images.enhance import enhance

Pixels = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

SECONDS = 20
"""80 million pixels of PNG take 3 s on one core."""


def pixels(data: bytes, side: int, settings: Mapping[str, Any]) -> Pixels:
    """What the model sees of a file, and the same field of view for people.

    Args:
        data: the file's content.
        side: of the picture for people.
        settings: the model's `data`, as `Pretrained.preprocess` goes by it.

    Returns:
        uint8 `[size, size, 3]` and `[side, side, 3]`.

    Raises:
        ImageError: one line.
    """
    fit = settings["fit"]
    square = decode(data, settings["image_size"], fit, settings["decode"], key="this file")
    picture = decode(data, side, fit, key="this file")
    return enhance(square) if settings["enhance"] else square, picture


class Readers:
    """Processes that call functions, one call each at a time; to be used in a `with`.

    Args:
        count: how many. With two or more, one that takes long does not hold up the next.
        seconds: that a call may take; then its process is ended, and another takes its place.
    """

    def __init__(self, count: int, seconds: float = SECONDS):
        self.seconds = seconds
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(_Process())
        self._count = count

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` returns, or raises as an ImageError.

        Raises:
            ImageError: one line: the function's own, or that it took too long or ended its process.
        """
        process = self._idle.get()
        try:
            process.wait()
            process.pipe.send((function, arguments))
            if not process.pipe.poll(self.seconds):
                raise ImageError(f"this file takes longer than the {self.seconds:g} s allowed")
            good, result = process.pipe.recv()
        except BaseException as error:
            process.end()
            process = _Process()
            if isinstance(error, EOFError | OSError):
                raise ImageError("this file cannot be read: it brings the decoder down") from None
            raise
        finally:
            self._idle.put(process)
        if not good:
            raise ImageError(result)
        return result

    def __enter__(self) -> "Readers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for _ in range(self._count):
            try:
                self._idle.get(timeout=0.1).end()
            except queue.Empty:  # busy: it ends with this process, whose daemon it is
                return


class _Process:
    """A process that waits for calls at the other end of a pipe."""

    pipe: Connection
    _process: SpawnProcess

    def __init__(self) -> None:
        # Spawned: a fork would inherit the threads' locks of JAX and of the server.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._ready = False

    def wait(self) -> None:
        """Until it has started, which is not part of a call's time."""
        if not self._ready:
            self._ready = self.pipe.recv()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe.send(True)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:  # the server is gone
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            # ImageError says what is wrong; of anything else the type, which is not for visitors.
            known = isinstance(error, ImageError)
            answer = False, str(error) if known else f"this file: {type(error).__name__}"
        pipe.send(answer)
