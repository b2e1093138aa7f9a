"""A real Open WebUI in a process of its own: start, stop, kill, start again on the same data."""

import atexit
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import httpx

# Settings of whoever runs the tests must not leak into the server.
_OWN_PREFIXES = ("DATABASE_", "ENABLE_", "OLLAMA_", "OPENAI_", "REDIS_", "WEBUI_", "UVICORN_")
_OWN_NAMES = ("DATA_DIR", "ENV", "GLOBAL_LOG_LEVEL", "PORT", "VECTOR_DB")

_SETTINGS = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_OLLAMA_API": "false",
    "RAG_EMBEDDING_ENGINE": "openai",  # no download of a local embedding model
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
    "ENABLE_API_KEYS": "true",
    "USER_PERMISSIONS_FEATURES_API_KEYS": "true",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "NO_PROXY": "127.0.0.1,localhost",
}

# What a start spends its time on and no chat needs: libraries for embedding on this machine, whose
# embeddings would come from the provider, and the news of all versions, written out as HTML.
_LEFT_OUT = 'raise ImportError("left out: see scripts")\n'
_STAND_INS = {
    "sentence_transformers": _LEFT_OUT,
    "transformers": _LEFT_OUT,
    "markdown": 'def markdown(*_, **__):\n    return ""\n',
}


class ServerDied(RuntimeError):
    """Open WebUI ended by itself, or didn't come up in time; the message ends with its log."""


def open_webui_command() -> Path:
    """The `open-webui` that is started: `OPEN_WEBUI_COMMAND`, or the one beside this Python."""
    chosen = os.environ.get("OPEN_WEBUI_COMMAND")
    return Path(chosen).absolute() if chosen else Path(sys.executable).with_name("open-webui")


def open_webui_version() -> tuple[int, ...]:
    """The version of the `open-webui` that is started, such as (0, 12, 4)."""
    ask = "from importlib.metadata import version; print(version('open-webui'))"
    python = open_webui_command().with_name("python")
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in answer.stdout.strip().split(".")[:3])


def free_port() -> int:
    """A port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Preloaded:
    """The process that forks all servers of one Open WebUI (scripts/openwebui/preloaded.py)."""

    def __init__(self, command: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="open-webui-")
        left_out = Path(self._folder.name)
        for name, source in _STAND_INS.items():
            (left_out / f"{name}.py").write_text(source)
        self._path = {"PYTHONPATH": str(left_out)}
        self._log_path = left_out / "preloaded.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [command.with_name("python"), "-P", Path(__file__).with_name("preloaded.py")],
                env=_inherited() | _SETTINGS | self._path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        atexit.register(self._end)

    def fork(self, arguments: list[str], environment: dict[str, str], log: Path) -> int:
        """Start a server in the directory of its log; returns its process id."""
        order = {
            "arguments": arguments,
            "environment": environment | self._path,
            "directory": str(log.parent),
            "log": str(log),
        }
        given, answers = self._process.stdin, self._process.stdout
        assert given
        assert answers
        with suppress(BrokenPipeError):
            given.write(f"{json.dumps(order)}\n")
            given.flush()
        if not (answer := answers.readline()):
            raise ServerDied(f"No server can be forked.\n{self._log_path.read_text()}")
        return int(answer)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


_preloaded = cache(_Preloaded)


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIXES)
        and name not in _OWN_NAMES
        and not name.lower().endswith("_proxy")
    }


def _is_there(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


class OpenWebUIServer:
    """One Open WebUI, with its data in a directory of its own, and a provider behind it.

    `env` are settings of Open WebUI's, such as `DATABASE_URL` or `UVICORN_WORKERS`, and may name
    more providers (`FakeProvider.settings`).
    """

    def __init__(
        self,
        provider_url: str,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._temporary = None if data_dir else tempfile.TemporaryDirectory(prefix="open-webui-")
        self.data_dir = data_dir or Path(self._temporary.name if self._temporary else "")
        self.provider_url = provider_url
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = self.data_dir / "server.log"
        self.env = dict(env or {})
        self.seconds_to_start = 0.0
        self._secret = secrets.token_hex(16)  # the same after a restart: logins stay valid
        self._process: int | None = None

    @property
    def database_path(self) -> Path:
        """The SQLite file, unless `DATABASE_URL` names another database."""
        return self.data_dir / "webui.db"

    @property
    def database_url(self) -> str:
        """The database as Open WebUI spells it."""
        return self.env.get("DATABASE_URL", f"sqlite:///{self.database_path}")

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and _is_there(self._process)

    def start(self, *, timeout: float = 300.0) -> "OpenWebUIServer":
        """Start the process; returns once it answers."""
        if self.running:
            return self
        command = open_webui_command()
        if not command.exists():
            raise ServerDied(f"{command} is missing: run `make .venv` for the whole environment")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        arguments = ["serve", "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = _preloaded(command).fork(arguments, self._environment(), self.log_path)
        atexit.register(self.kill)
        self._wait_until_it_answers(began + timeout)
        self.seconds_to_start = time.monotonic() - began
        return self

    def stop(self, *, grace: float = 10.0) -> None:
        """End the process and its children, and remove the data if they were temporary."""
        self._end(signal.SIGTERM, grace)
        if self._temporary:
            self._temporary.cleanup()

    def kill(self) -> None:
        """End the process and its children at once, as a crash does."""
        self._end(signal.SIGKILL, 0)

    def restart(
        self, *, env: Mapping[str, str] | None = None, grace: float = 10.0
    ) -> "OpenWebUIServer":
        """Start again on the same data and port, with other settings if given."""
        self._end(signal.SIGTERM, grace)
        if env is not None:
            self.env = dict(env)
        return self.start()

    def __enter__(self) -> "OpenWebUIServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        """Everything that the server has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _environment(self) -> dict[str, str]:
        own = {
            "DATA_DIR": str(self.data_dir),
            "WEBUI_SECRET_KEY": self._secret,
            "OPENAI_API_BASE_URL": self.provider_url,
            "OPENAI_API_KEY": "fake-llm",
        }
        return _inherited() | _SETTINGS | own | self.env

    def _wait_until_it_answers(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerDied(f"Open WebUI ended.\n{self._tail()}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=2, trust_env=False).is_success:
                    return
            time.sleep(0.1)
        self.kill()
        raise ServerDied(f"Open WebUI did not answer in time.\n{self._tail()}")

    def _tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def _end(self, first: signal.Signals, grace: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        for signal_ in (first, signal.SIGKILL):
            with suppress(ProcessLookupError):  # the group, by the leader's id: workers too
                os.killpg(process, signal_)
            deadline = time.monotonic() + (grace if signal_ is not signal.SIGKILL else 10)
            while _is_there(process) and time.monotonic() < deadline:
                time.sleep(0.02)
