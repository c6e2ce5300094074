"""Work that a pool does ahead of its use."""

import threading
from concurrent.futures import ThreadPoolExecutor

from vclip_jax.devices.ahead import ahead


def test_results_come_in_order_and_few_are_computed_ahead():
    running, most = threading.Semaphore(0), 3
    started = []

    def work(item: int) -> int:
        started.append(item)
        if item == 0:
            running.acquire()
        return -item

    with ThreadPoolExecutor(8) as pool:
        results = ahead(pool, work, iter(range(20)), most)
        running.release()
        for item in range(20):
            assert next(results) == -item
            assert max(started) <= item + most
        assert next(results, None) is None
