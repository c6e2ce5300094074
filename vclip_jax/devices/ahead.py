"""Work that a pool does ahead of its use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(pool: Executor, function: Callable[[A], B], items: Iterable[A], most: int) -> Iterator[B]:
    """Yield `function` of each item, in order; a pool computes at most `most` items ahead.

    The pool goes on while the caller works, unlike with `Executor.map` on one batch after another,
    and takes no more than `most` items from `items` in advance.
    """
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
