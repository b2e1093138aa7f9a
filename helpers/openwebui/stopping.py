"""One process, many pastes: who has a ledger in it, so that older ones let go and all stop well."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, ModuleType
from typing import Any
from weakref import ref

# Every paste is a module of its own. They find each other where all modules are.
KEEPERS_MODULE = "usage_limits_keepers"
# How long a signal may hold up the server that it ends.
STOP_WAIT_SECONDS = 2.0


def replace_keepers(newest: Any) -> None:
    """Tell all older ones that another has taken over, and see that each of them stops well.

    They hold replies, threads and connections, and have `retire` and `stop`. Each is of the class
    of its own paste.
    """
    shared: Any = sys.modules.get(KEEPERS_MODULE)
    if shared is None:
        shared = sys.modules[KEEPERS_MODULE] = ModuleType(KEEPERS_MODULE)
        shared.keepers = []
        atexit.register(stop_keepers)
    if not getattr(shared, "watches_signal", False):
        shared.watches_signal = stop_on_signal(stop_keepers)
    older = [keeper for kept in shared.keepers if (keeper := kept()) is not None]
    shared.keepers = [ref(keeper) for keeper in [*older, newest]]
    for keeper in older:
        with suppress(RuntimeError):  # its event loop has just been closed
            keeper.retire()


def stop_keepers() -> None:
    """Settle what is running in this process."""
    shared: Any = sys.modules.get(KEEPERS_MODULE)
    for kept in getattr(shared, "keepers", ()):
        keeper = kept()
        if keeper is not None:
            keeper.stop()


def stop_on_signal(stop: Callable[[], None]) -> bool:
    """Call `stop` when the server is asked to end: it doesn't come to its end otherwise.

    Uvicorn ends its process by the same signal, so that nothing runs at exit.

    Returns:
        False where there is nobody to ask: outside the main thread, or without a server.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        return False
    handle = before

    def stop_and_pass_on(number: int, frame: FrameType | None) -> None:
        # In a thread: what was interrupted may hold a lock that is needed, and then goes on.
        thread = threading.Thread(target=stop, name="usage-limits-stop", daemon=True)
        thread.start()
        thread.join(STOP_WAIT_SECONDS)
        handle(number, frame)

    signal.signal(signal.SIGTERM, stop_and_pass_on)
    return True
