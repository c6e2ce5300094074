"""What every process that helps to build a dataset does first."""

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

import cv2


def start_worker() -> None:
    """One thread a process, and no life after the parent, even if that is killed."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
