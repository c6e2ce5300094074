"""Copy batches to the devices ahead of the step, in a thread."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import jax

from vclip_jax.data.pipeline import HostBatch
from vclip_jax.data.progress import StalledError


def prefetch_to_device(
    batches: Iterator[HostBatch], sharding: jax.sharding.Sharding, depth: int = 2
) -> "DevicePrefetcher":
    """Turn the hosts' batches into global arrays on the devices, `depth` of them ahead.

    Args:
        batches: this host's batches; every host has the same number.
        sharding: the sharding of all arrays; the leading axis is the batch.
        depth: batches that wait on the devices besides the one in use, at least 1.
    """
    return DevicePrefetcher(batches, sharding, depth)


class DevicePrefetcher(Iterator[dict[str, jax.Array]]):
    """An iterator of global batches that a background thread fills; also a context manager.

    `next` raises `StalledError` if a worker hangs, see `Progress.stalled`.
    """

    def __init__(
        self,
        batches: Iterator[HostBatch],
        sharding: jax.sharding.Sharding,
        depth: int,
        patience: float = 45.0,
    ):
        """See `prefetch_to_device`; `patience` is the time in seconds that one record may take."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.seconds_waited = 0.0
        """Time that `next` spent waiting for a batch, in seconds since the start."""
        self._batches = batches
        self._sharding = sharding
        self._patience = patience
        self._ready: queue.Queue[dict[str, jax.Array] | BaseException] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> dict[str, jax.Array]:
        if self._error is not None:
            raise self._error
        start = time.perf_counter()
        item = self._wait()
        self.seconds_waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._error = item
            raise item
        return item

    def _wait(self) -> dict[str, jax.Array] | BaseException:
        """Return the next batch, or an error."""
        start = time.monotonic()
        while True:
            try:
                return self._ready.get(timeout=min(5.0, self._patience))
            except queue.Empty:
                stalled = getattr(self._batches, "stalled", lambda limit: None)
                if time.monotonic() - start > self._patience and (why := stalled(self._patience)):
                    return StalledError(f"data does not come: {why}")

    def close(self) -> None:
        """Stop the thread, and close the batches if possible. May be called again."""
        self._stop.set()
        if isinstance(self._error, StalledError):
            return  # the stalled threads would be waited for
        self._error = self._error or StopIteration()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(timeout=0.05)
        self._drain()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> "DevicePrefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self) -> None:
        try:
            while not self._stop.is_set():
                batch = next(self._batches)
                self._ready.put(
                    {
                        name: jax.make_array_from_process_local_data(self._sharding, array)
                        for name, array in batch.items()
                    }
                )
        except BaseException as error:  # also StopIteration: the waiting side must get it
            self._ready.put(error)

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()
