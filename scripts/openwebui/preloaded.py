"""Starts of Open WebUI that share what they would all load: a process forks each of them.

Two thirds of a start go into libraries that know no settings. This file is run by the Python of the
Open WebUI that is wanted; it loads those, and forks a server for each line of its input, a JSON
object with `arguments`, `environment`, `directory` and `log`. It answers with the process id.
Open WebUI itself is loaded by every server anew.
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any

# By `python -X importtime`, on Open WebUI 0.12.4; what another version doesn't have is left out.
LIBRARIES = [
    "PIL.Image",
    "aiohttp",
    "alembic.config",
    "authlib.integrations.starlette_client",
    "azure.identity",
    "azure.storage.blob",
    "black",
    "boto3",
    "bs4",
    "chromadb",
    "dotenv",
    "fastapi",
    "google.cloud.storage",
    "langchain_classic.retrievers",
    "langchain_core.callbacks.manager",
    "ldap3",
    "loguru",
    "mcp.shared.auth",
    "qrcode",
    "regex",
    "requests",
    "socketio",
    "sqlalchemy.ext.asyncio",
    "starsessions.stores.redis",
    "typer",
    "uvicorn",
]


def main() -> None:
    """Load the libraries, then fork a server for each line."""
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    threads = [thread.name for thread in threading.enumerate()]
    if len(threads) > 1:
        raise RuntimeError(f"a library has started threads, which a fork would lose: {threads}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if not process:
            serve(**order)
        print(process, flush=True)


def serve(arguments: list[str], environment: dict[str, str], directory: str, log: str) -> None:
    """Be the `open-webui` with these arguments, in a process group of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(directory)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["open-webui", *arguments]
    command: Any = import_module("open_webui")
    command.app()
    sys.exit()


if __name__ == "__main__":
    main()
