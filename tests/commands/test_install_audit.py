"""The audit of ways around the filter, with and without a reverse proxy that closes them."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.install.audit import judge
from scripts.install.command import main
from scripts.install.host import KEY_VARIABLE, Answer, InstallError
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.server import OpenWebUIServer, free_port
from scripts.provider.server import FakeProvider
from tests.conftest import ROOT, InstalledFilter

DOCUMENT = (ROOT / "docs" / "reverse-proxy.md").read_text("utf-8")
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    {snippet}
    location / {{
      proxy_pass {url}; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}
"""
CADDY = """
{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
{snippet}
	reverse_proxy {url}
}}
"""
TEMPLATES = {"nginx": NGINX, "caddy": CADDY}
COMMANDS = {
    "nginx": ["nginx", "-e", "stderr", "-p", "{folder}", "-c", "{folder}/configuration"],
    "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/configuration"],
}


@pytest.fixture(scope="module", params=sorted(TEMPLATES))
def proxy(
    request: pytest.FixtureRequest,
    server: OpenWebUIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A reverse proxy with the documentation's rules before Open WebUI; its address."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    snippet = re.search(rf"```{name}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert snippet
    folder, port = tmp_path_factory.mktemp(name), free_port()
    text = TEMPLATES[name].format(folder=folder, port=port, url=server.url, snippet=snippet[1])
    (folder / "configuration").write_text(text)
    command = [word.format(folder=folder) for word in COMMANDS[name]]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a proxy passes requests on."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(log.read_text())


def audit(
    url: str,
    client: OpenWebUIClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, dict[str, str]]:
    """Run the audit as somebody: its exit status, and the state of each path."""
    monkeypatch.setenv(KEY_VARIABLE, client.api_key())
    status = main(["audit", "--url", url])
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = [line.split("│") for line in printed.out.splitlines() if line.startswith("│ ")]
    return status, {row[1].strip(): row[3].strip() for row in rows if row[1].strip()}


def test_audit_says_what_the_filter_closes(
    usage_limits: InstalledFilter,
    server: OpenWebUIServer,
    user: OpenWebUIClient,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over a limit of nothing no way reaches the provider, and below one the filter counts them."""
    usage_limits.configure(policies='[role.user]\nlimits = ["0 tokens/day"]')
    before = len(provider.call_log.calls(tasks=True))
    status, states = audit(server.url, user, monkeypatch, capsys)
    assert len(provider.call_log.calls(tasks=True)) == before
    assert states["/openai/chat/completions"].startswith("closed: You can't use any models")
    assert states["/api/v1/messages"].startswith("closed: You can't use any models")
    assert [path for path, state in states.items() if state.startswith("OPEN")] == []
    assert status == 0
    usage_limits.configure()
    states = audit(server.url, user, monkeypatch, capsys)[1]
    assert states["/openai/chat/completions"] == "closed: the filter counts it"
    assert states["/api/v1/tasks/moa/completions"] == "closed: the filter counts it"
    assert [path for path, state in states.items() if state.startswith("OPEN")] == []


def test_audit_says_what_is_open(
    usage_limits: InstalledFilter,
    server: OpenWebUIServer,
    user: OpenWebUIClient,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without the filter and a proxy, direct calls get through, and are named as open."""
    usage_limits.switch(active=False)
    before = len(provider.call_log.calls(contains="Hi"))
    status, states = audit(server.url, user, monkeypatch, capsys)
    assert status == 1
    assert states["/openai/chat/completions"] == "OPEN: it answered"
    assert len(provider.call_log.calls(contains="Hi")) > before
    assert states["/openai/responses"].startswith("OPEN")
    assert states["/api/v1/tasks/moa/completions"] == "OPEN: it answered"
    assert states["/api/v1/audio/transcriptions"] == "OPEN: it answered"
    assert states["/openai/completions"].startswith("closed: Direct API passthrough is disabled")
    assert states["/ollama/api/chat"].startswith("closed: The Ollama API is disabled")
    assert states["/api/v1/messages"] == "unknown: depends on the connections"


def test_audit_names_models_without_the_filter(
    usage_limits: InstalledFilter,
    server: OpenWebUIServer,
    user: OpenWebUIClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model on which the filter isn't on is a way around it; so is a filter that is off."""
    usage_limits.switch(everywhere=False)
    states = audit(server.url, user, monkeypatch, capsys)[1]
    assert states["/api/chat/completions"].startswith("OPEN: it is not on for fake-llm, ")
    usage_limits.switch(active=False)
    states = audit(server.url, user, monkeypatch, capsys)[1]
    assert states["/api/chat/completions"].startswith("OPEN: the filter is not installed or not")


def test_audit_needs_an_ordinary_user(
    server: OpenWebUIServer,
    admin: OpenWebUIAdmin,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An administrator's key would show nothing."""
    monkeypatch.setenv(KEY_VARIABLE, admin.api_key())
    assert main(["audit", "--url", server.url]) == 1
    assert capsys.readouterr().err.startswith("the key is an administrator's")


def test_proxy_closes_what_the_documentation_says(
    proxy: str,
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Behind the documentation's rules nothing under /openai, /ollama or the tasks is open."""
    states = audit(proxy, user, monkeypatch, capsys)[1]
    closed = [
        path
        for path in states
        if path.startswith(("/openai/", "/ollama/", "/api/v1/tasks/")) or "embeddings" in path
    ]
    assert len(closed) > 20
    assert {states[path] for path in closed} == {"closed: status 403 before Open WebUI"}


TRICKS = (
    "/openai/chat/completions/",
    "//openai/chat/completions",
    "/openai//chat/completions",
    "/openai/./chat/completions",
    "/api/../openai/chat/completions",
    "/openai/config/../chat/completions",
    "/%6fpenai/chat/completions",
    "/openai/chat%2Fcompletions",
    "/openai%2Fchat/completions",
    "/openai/config%2F..%2Fchat/completions",
    "/openai/chat/completions?x=/openai/config",
    "/openai/chat/completions;/config",
)


@pytest.mark.parametrize("path", TRICKS)
def test_no_spelling_of_a_path_gets_past_the_proxy(
    proxy: str, path: str, user: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Doubled slashes, dots and percent signs don't help."""
    text = f"past the proxy {user.id}"
    status = post_raw(proxy, path, user, text)
    assert status not in (200, 307), path
    assert provider.call_log.calls(contains=text) == []


def post_raw(url: str, path: str, client: OpenWebUIClient, text: str) -> int:
    """POST to a path exactly as it is spelled; the status."""
    body = f'{{"model": "fake-llm", "messages": [{{"role": "user", "content": "{text}"}}]}}'
    headers = {
        "Authorization": f"Bearer {client.account.token}",
        "Content-Type": "application/json",
    }
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_proxy_leaves_the_pages_alone(
    proxy: str, usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient
) -> None:
    """The administrator's pages get what they ask for, and chats pass, streamed too."""
    with ThroughProxy(proxy, admin) as through:
        for path in ("/openai/config", "/openai/models", "/openai/models/0", "/ollama/config"):
            assert through.get(path).status_code == 200, path
        for path in ("/ollama/api/tags", "/ollama/api/version", "/ollama/"):
            assert through.get(path).status_code != 403, path
        verify = {"url": "http://127.0.0.1:1/v1", "key": "x"}
        for path in ("/openai/verify", "/ollama/verify"):
            assert through.post(path, json=verify).status_code != 403, path
    for stream in (False, True):
        through_proxy = OpenWebUIClient(proxy, user.account)
        reply = through_proxy.chat("Hello", stream=stream)
        through_proxy.close()
        assert (reply.status, bool(reply.text)) == (200, True)


class ThroughProxy(httpx.Client):
    """The administrator's requests, through a proxy."""

    def __init__(self, url: str, admin: OpenWebUIAdmin) -> None:
        headers = {"Authorization": f"Bearer {admin.account.token}"}
        super().__init__(base_url=url, headers=headers, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    ("status", "body", "from_open_webui", "state"),
    [
        (200, {"choices": []}, True, "open"),
        (200, {"detail": "Title generation is disabled"}, True, "closed"),
        (400, {"error": {"message": "no such model"}}, True, "open"),
        (404, None, True, "open"),
        (403, None, False, "closed"),
        (403, {"detail": "You do not have permission"}, True, "closed"),
        (503, {"detail": "OpenAI API is disabled"}, True, "closed"),
        (500, {"detail": "Open WebUI: Server Connection Error"}, True, "open"),
        (502, None, False, "unknown"),
        (422, {"detail": [{"loc": ["body"]}]}, False, "unknown"),
        (429, {"detail": "slow down"}, False, "unknown"),
    ],
)
def test_judgement(status: int, body: Any, from_open_webui: bool, state: str) -> None:
    """Who answered, and with what, tells whether a path is open."""
    assert judge(Answer(status, body, from_open_webui))[0] == state


def test_unreachable_way_is_unknown() -> None:
    """A path on which nothing comes back is neither open nor closed."""
    from scripts.install.audit import WAYS, try_way

    class Silent:
        def ask(self, *_: Any, **__: Any) -> Answer:
            raise InstallError("no answer within 60 seconds")

    finding = try_way(Silent(), WAYS[0], [])  # type: ignore[arg-type]
    assert (finding.state, finding.why) == ("unknown", "no answer within 60 seconds")
