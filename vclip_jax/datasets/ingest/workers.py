"""The setup of processes that help to build a dataset."""

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

import cv2


def start_worker() -> None:
    """Use one thread, and end with the parent process, even if the parent is killed."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
