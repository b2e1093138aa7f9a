"""The installer against a real Open WebUI, and what it says where it can't work."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.install.command import main
from scripts.install.host import KEY_VARIABLE, clean_url, read_numbers
from scripts.install.plan import MANIFEST
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.server import free_port
from tests.conftest import FUNCTION_FILE, FUNCTION_ID, OwnServer, StartServer

POLICIES = (
    '[group.Students]\nlimits = ["50k tokens/day"]\n[role.user]\nlimits = ["9k tokens/day"]\n'
)
SAVED = "Saved the policies (1 group, 1 role); other valves stay"
VERSION = MANIFEST["version"]
# As a release before this one would stand there.
OLDER = FUNCTION_FILE.read_text("utf-8").replace(f"version: {VERSION}", "version: 0.0.9", 1)

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a key, good for stubs alone."""
    monkeypatch.setenv(KEY_VARIABLE, "sk-of-nobody")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command: its exit status, the lines that it printed, and its errors."""

    def run_main(*arguments: str) -> tuple[int, list[str], str]:
        status = main(arguments)
        printed = capsys.readouterr()
        assert "sk-of-nobody" not in printed.out + printed.err
        return status, printed.out.splitlines(), printed.err.strip()

    return run_main


@pytest.fixture(scope="module")
def own(start_server: StartServer) -> OwnServer:
    """A server of this module's own, since the filter is removed and put back."""
    server = start_server()
    server.admin.create_group("Students")
    return server


@pytest.fixture
def host(own: OwnServer, monkeypatch: pytest.MonkeyPatch) -> OpenWebUIAdmin:
    """Its administrator, on a server without the filter, with models that name no filter."""
    monkeypatch.setenv(KEY_VARIABLE, own.admin.api_key())
    for function_id in own.admin.functions():
        own.admin.delete_function(function_id)
    own.admin.publish_models()
    return own.admin


@pytest.fixture
def policies_file(tmp_path: Path) -> str:
    """A file with policies."""
    path = tmp_path / "policies.toml"
    path.write_text(POLICIES)
    return str(path)


def installed(host: OpenWebUIAdmin) -> dict[str, Any]:
    """The function as Open WebUI has it."""
    function: dict[str, Any] = host.get(f"/api/v1/functions/id/{FUNCTION_ID}")
    return function


def model_entry(host: OpenWebUIAdmin, model_id: str) -> dict[str, Any]:
    """A model's entry without what every change changes."""
    entry = host.get(f"/api/v1/models/model?id={model_id}")
    assert entry["meta"]["filterIds"] is not None
    return {
        name: value for name, value in entry.items() if name not in ("updated_at", "version_id")
    }


def test_installs_for_all_models_and_then_changes_nothing(
    run: Run, host: OpenWebUIAdmin, policies_file: str
) -> None:
    """One run installs, sets the policies and switches on; the next has nothing to do."""
    arguments = ("--url", host.url, "--global", "--policies", policies_file)
    planned = run(*arguments, "--dry-run")
    assert planned == (
        0,
        [
            f"Would install usage_limits {VERSION}",
            "Would save the policies (1 group, 1 role); other valves stay",
            "Would switch on usage_limits",
            "Would switch on usage_limits for all models",
        ],
        "",
    )
    assert host.functions() == {}
    assert run(*arguments) == (
        0,
        [
            f"Installed usage_limits {VERSION}",
            SAVED,
            "Switched on usage_limits",
            "Switched on usage_limits for all models",
        ],
        "",
    )
    function = installed(host)
    assert (function["is_active"], function["is_global"]) == (True, True)
    assert function["content"] == FUNCTION_FILE.read_text("utf-8")
    assert function["name"] == MANIFEST["title"]
    assert host.valves(FUNCTION_ID) == {"policies": POLICIES}
    assert run(*arguments) == (0, ["Nothing needs changing."], "")
    assert run("--url", f"{host.url}/") == (0, ["Nothing needs changing."], "")
    assert installed(host) == function


def test_says_whom_the_policies_mean_in_vain(
    run: Run, host: OpenWebUIAdmin, tmp_path: Path
) -> None:
    """Names of groups, users and models that aren't there are told, and saved all the same."""
    text = (
        '[group.Studnets]\nlimits = ["1 request/day"]\n'
        '[group.students]\nlimits = ["5 requests/day on fake-lln"]\n'
        f'[user."{host.account.email}"]\nlimits = "unlimited"\n'
        f'[user."x{host.account.email}"]\nlimits = "unlimited"\n'
    )
    (tmp_path / "policies.toml").write_text(text)
    status, lines, _ = run("--url", host.url, "--policies", str(tmp_path / "policies.toml"))
    assert status == 0
    assert host.valves(FUNCTION_ID) == {"policies": text}
    warned = [line for line in lines if line.startswith("Warning: ")]
    assert [line.removeprefix("Warning: ") for line in warned] == [
        '[group.Studnets] names nobody: Open WebUI has no group "Studnets"; '
        'did you mean "Students"?',
        f'[user."x{host.account.email}"] names nobody: Open WebUI has no user with this address; '
        f'did you mean "{host.account.email}"?',
        '[group.students] limit "5 requests/day on fake-lln" fits no model that Open WebUI has; '
        'did you mean "fake-llm"?',
    ]


def test_enables_only_the_models_named(run: Run, host: OpenWebUIAdmin, own: OwnServer) -> None:
    """Models get the filter among those that they name, keep everything else, and limit."""
    params = {"temperature": 0.3, "system": "Be brief."}
    host.set_model("fake-llm", filter_ids=["another"], params=params, usage=True)
    before = {model: model_entry(host, model) for model in ("fake-llm", "fake-llm-large")}
    arguments = ("--url", host.url, "--models", "fake-llm")
    assert run(*arguments) == (
        0,
        [
            f"Installed usage_limits {VERSION}",
            "Switched on usage_limits",
            "Added usage_limits to the model fake-llm",
        ],
        "",
    )
    assert run(*arguments) == (0, ["Nothing needs changing."], "")
    after = {model: model_entry(host, model) for model in before}
    assert after["fake-llm"]["meta"].pop("filterIds") == ["another", FUNCTION_ID]
    assert before["fake-llm"]["meta"].pop("filterIds") == ["another"]
    assert after == before
    host.set_valves(FUNCTION_ID, {"policies": '[role.user]\nlimits = ["0 tokens/day"]'})
    user = host.add_user("Uma", "only-some@example.org")
    assert [user.chat("Hi", model=model).status for model in before] == [429, 200]
    assert run("--url", host.url) == (
        0,
        ["Nothing needs changing.", "It is on for fake-llm alone."],
        "",
    )


def test_model_that_nobody_has_set_up_stays_private(run: Run, host: OpenWebUIAdmin) -> None:
    """A provider's model without an entry gets one, and is opened to nobody by it."""
    host.delete_model("fake-llm-free")
    status, lines, _ = run("--url", host.url, "--models", "fake-llm-free", "fake-llm-free")
    assert (status, lines[-1]) == (0, "Added usage_limits to the model fake-llm-free")
    entry = model_entry(host, "fake-llm-free")
    assert (entry["meta"]["filterIds"], entry["access_grants"]) == ([FUNCTION_ID], [])
    assert (entry["name"], entry["is_active"]) == ("fake-llm-free", True)
    assert "fake-llm-free" in host.models()
    assert "fake-llm-free" not in host.add_user("Una", "private@example.org").models()


def test_naming_models_ends_the_limit_on_all(run: Run, host: OpenWebUIAdmin) -> None:
    """With --models a filter that was on for all models is so no longer, and says so."""
    run("--url", host.url, "--global")
    status, lines, _ = run("--url", host.url, "--models", "fake-llm")
    assert (status, lines) == (
        0,
        [
            "Added usage_limits to the model fake-llm",
            "Switched off usage_limits for all models: "
            "from now on, only those that name it are limited",
        ],
    )
    assert installed(host)["is_global"] is False


def test_says_if_it_is_on_for_no_model(run: Run, host: OpenWebUIAdmin) -> None:
    """Without --models and --global a new filter limits nobody; that isn't left unsaid."""
    hint = "It is on for no model yet: add --global for all, or --models A B for some."
    assert run("--url", host.url)[1][-1] == hint
    assert run("--url", host.url)[1] == ["Nothing needs changing.", hint]


def test_update_keeps_valves_ledger_and_names(
    run: Run, host: OpenWebUIAdmin, own: OwnServer
) -> None:
    """A newer file in place of an older one: the valves, the ledger and the switches stay."""
    form = {
        "id": FUNCTION_ID,
        "name": "Our limits",
        "content": OLDER,
        "meta": {"description": "Ask Ada."},
    }
    host.post("/api/v1/functions/create", form)
    host.switch_function(FUNCTION_ID, active=True, everywhere=True)
    valves = {"daily_token_limit": 1000, "timezone": "Europe/Berlin", "policies": POLICIES}
    host.set_valves(FUNCTION_ID, valves)
    user = host.add_user("Ute", "update@example.org")
    user.chat("[[in=20 tokens=30]]")
    rows = own.usage_limits.settled(1, user_id=user.id)
    assert run("--url", host.url) == (
        0,
        [f"Updated usage_limits 0.0.9 to {VERSION}; its valves and ledger stay"],
        "",
    )
    function = installed(host)
    assert function["content"] == FUNCTION_FILE.read_text("utf-8")
    assert (function["name"], function["meta"]["description"]) == ("Our limits", "Ask Ada.")
    assert function["meta"]["manifest"]["version"] == VERSION
    assert (function["is_active"], function["is_global"]) == (True, True)
    assert host.valves(FUNCTION_ID) == valves
    assert own.usage_limits.rows(user_id=user.id) == rows
    user.chat("[[in=20 tokens=30]]")
    assert len(own.usage_limits.settled(2, user_id=user.id)) == 2


def test_policies_leave_other_valves_alone(
    run: Run, host: OpenWebUIAdmin, policies_file: str
) -> None:
    """Only the policies valve changes."""
    run("--url", host.url, "--global")
    host.set_valves(FUNCTION_ID, {"daily_token_limit": 7, "policies": "# none"})
    assert run("--url", host.url, "--policies", policies_file)[1] == [SAVED]
    assert host.valves(FUNCTION_ID) == {"daily_token_limit": 7, "policies": POLICIES}


def test_update_that_the_valves_do_not_fit_is_explained(run: Run, host: OpenWebUIAdmin) -> None:
    """Where a valve is no longer right for the new file, Open WebUI's reason is passed on."""
    lenient = OLDER.replace("        read_timezone(name)\n        return", "        return")
    assert lenient != OLDER
    host.install_function(FUNCTION_ID, lenient)
    host.set_valves(FUNCTION_ID, {"timezone": "Europe/Atlantis"})
    status, lines, error = run("--url", host.url, "--global")
    assert (status, lines) == (1, [])
    assert "Current Valves are incompatible with this code" in error
    assert "Europe/Atlantis" in error
    assert installed(host)["content"] == lenient


def test_refused_valves_are_explained(
    run: Run, host: OpenWebUIAdmin, own: OwnServer, policies_file: str
) -> None:
    """Where another valve was stored wrong, the form's reason is told, not only a status."""
    run("--url", host.url, "--global")
    with closing(sqlite3.connect(own.server.database_path)) as database, database:
        wrong = json.dumps({"timezone": "Europe/Atlantis"})
        database.execute("UPDATE function SET valves = ? WHERE id = ?", (wrong, FUNCTION_ID))
    status, lines, error = run("--url", host.url, "--policies", policies_file)
    assert (status, lines) == (1, [])
    assert error.startswith("the valves were refused\ntimezone: NOT SAVED at ")
    assert "Europe/Atlantis" in error


def test_someone_elses_function_is_not_overwritten(run: Run, host: OpenWebUIAdmin) -> None:
    """A function of another title with the filter's id is left alone."""
    other = '"""\ntitle: Other\n"""\n\n\nclass Filter:\n    pass\n'
    host.install_function(FUNCTION_ID, other)
    status, lines, error = run("--url", host.url, "--global")
    assert (status, lines) == (1, [])
    assert "another function with the id 'usage_limits'" in error
    assert installed(host)["content"] == other


def test_second_copy_is_not_installed(run: Run, host: OpenWebUIAdmin) -> None:
    """Two copies would count everything twice; the one that is there can be updated."""
    host.install_function("limits_of_ours", OLDER)
    status, _, error = run("--url", host.url, "--global")
    assert status == 1
    assert "add --function limits_of_ours" in error
    assert list(host.functions()) == ["limits_of_ours"]
    status, lines, _ = run("--url", host.url, "--function", "limits_of_ours")
    assert lines[0] == f"Updated limits_of_ours 0.0.9 to {VERSION}; its valves and ledger stay"


def test_unknown_model_stops_before_anything_changes(run: Run, host: OpenWebUIAdmin) -> None:
    """A mistyped model is named with those that are near, and nothing is installed."""
    status, lines, error = run("--url", host.url, "--models", "fake-llm", "fake-llm-larg")
    assert (status, lines) == (1, [])
    assert error.startswith("there is no model 'fake-llm-larg'; there are: fake-llm-large")
    assert host.functions() == {}


def test_bad_policies_stop_before_the_server_is_asked(run: Run, tmp_path: Path) -> None:
    """The policies file is checked first; every mistake in it is named."""
    path = tmp_path / "bad.toml"
    path.write_text('[group.A]\nlimits = ["5 tokens"]\n[group.B]\nlimit = []\n')
    status, _, error = run("--url", f"http://127.0.0.1:{free_port()}", "--policies", str(path))
    assert status == 1
    assert error.startswith("--policies: the text is not right, nothing was changed\n")
    assert "[group.A]" in error
    assert "[group.B]" in error


def test_unreadable_policies_file(run: Run, tmp_path: Path) -> None:
    """A file that isn't there, or isn't text, is named."""
    missing, binary = tmp_path / "missing.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, reason in ((missing, "No such file"), (binary, "is not UTF-8")):
        status, _, error = run("--url", "http://127.0.0.1:1", "--policies", str(path))
        assert status == 1
        assert error.startswith(str(path))
        assert reason in error


def test_wrong_key(run: Run, host: OpenWebUIAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that Open WebUI doesn't know is said to be that."""
    for key in ("sk-of-nobody", "eyJ.not.atoken"):
        monkeypatch.setenv(KEY_VARIABLE, key)
        status, _, error = run("--url", host.url, "--global")
        assert status == 1
        assert error.startswith("the key in OPENWEBUI_API_KEY is not accepted")


def test_ordinary_users_key(
    run: Run, host: OpenWebUIAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of somebody who is no administrator is said to be that."""
    user: OpenWebUIClient = host.add_user("Olaf", "ordinary@example.org")
    monkeypatch.setenv(KEY_VARIABLE, user.api_key())
    status, _, error = run("--url", host.url, "--global")
    assert status == 1
    assert error.startswith("the key is an ordinary user's")


def test_session_token_does_as_well(
    run: Run, host: OpenWebUIAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where API keys are off, a signed-in session's token is taken."""
    monkeypatch.setenv(KEY_VARIABLE, host.account.token)
    assert run("--url", host.url, "--global")[0] == 0


def test_runs_as_a_command(host: OpenWebUIAdmin) -> None:
    """As a process of its own, by the environment's key."""
    command = [sys.executable, "-m", "scripts.install", "--url", host.url, "--dry-run"]
    done = subprocess.run(
        command, cwd=FUNCTION_FILE.parent, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(f"Would install usage_limits {VERSION}\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("key", ["", "  ", "sk-ä", "two words"])
def test_key_that_can_be_none(run: Run, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A missing or garbled key is noticed before anybody is asked."""
    monkeypatch.setenv(KEY_VARIABLE, key)
    status, _, error = run("--url", "http://127.0.0.1:1")
    assert status == 1
    assert error.startswith(KEY_VARIABLE)
    assert "Settings > Account > API keys" in error


def test_unreachable_server(run: Run) -> None:
    """Nobody listens there: the reason is a few plain words."""
    url = f"http://127.0.0.1:{free_port()}"
    assert run("--url", url) == (1, [], f"{url} can't be reached: Connection refused")


def test_unknown_host(run: Run) -> None:
    """A host name that doesn't exist is no traceback."""
    status, _, error = run("--url", "http://no-such-host.invalid")
    assert status == 1
    assert error.startswith("http://no-such-host.invalid can't be reached: ")
    assert "HTTPConnection" not in error


@pytest.mark.parametrize("url", ["chat.example.org", "ftp://x", "http://", "http://x:99999", ""])
def test_no_web_address(run: Run, url: str) -> None:
    """What isn't a web address is refused as such."""
    assert "is no web address" in run("--url", url)[2]


def test_address_is_cleaned() -> None:
    """Closing slashes, queries and fragments are no part of it; a path of a proxy's is."""
    assert clean_url(" https://example.org/chat/?a=1#b ") == "https://example.org/chat"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.12.4", (0, 12, 4)), ("0.10.0-dev.2", (0, 10, 0)), ("1.0", (1, 0)), ("v1", ())],
)
def test_version_numbers(version: str, numbers: tuple[int, ...]) -> None:
    """Versions compare by their numbers."""
    assert read_numbers(version) == numbers


@contextmanager
def stub_server(answers: Mapping[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that answers GET by path, with JSON or text, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {"detail": "Not Found"}))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body)
            self.end_headers()
            self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def config(version: str = "0.12.4", **features: bool) -> tuple[int, dict[str, Any]]:
    """What Open WebUI says about itself."""
    return 200, {"version": version, "name": "Open WebUI", "features": features}


CONFIG, FUNCTIONS, ADMINS = "/api/config", "/api/v1/functions/", "/api/v1/models/base"
FORBIDDEN = {"detail": "Use of API key is not enabled in the environment."}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({CONFIG: (200, "<html>")}, "is not an Open WebUI (GET /api/config: status 200)"),
        ({CONFIG: (200, {"version": "1.2"})}, "is not an Open WebUI"),
        ({}, "is not an Open WebUI (GET /api/config: status 404)"),
        ({CONFIG: config("0.9.6")}, "Open WebUI 0.9.6 is too old: 0.10.0 or later is needed"),
        (
            {CONFIG: config(enable_functions=False), FUNCTIONS: (200, []), ADMINS: (200, [])},
            "functions are disabled there: ENABLE_FUNCTIONS or ENABLE_PLUGINS",
        ),
        ({CONFIG: config(), FUNCTIONS: (403, FORBIDDEN)}, "API keys are switched off"),
        (
            {CONFIG: config(), FUNCTIONS: (403, "no")},
            "GET /api/v1/functions/ is forbidden (status 403)",
        ),
        ({CONFIG: config(), FUNCTIONS: (500, "")}, "GET /api/v1/functions/ failed with status 500"),
        (
            {CONFIG: (302, "https://chat.example.org/api/config")},
            "redirects to https://chat.example.org: give --url the final address",
        ),
        (
            {CONFIG: (302, "https://login.example.org/start?next=secret")},
            "redirects to https://login.example.org/start: give",
        ),
    ],
)
def test_servers_that_will_not_do(
    run: Run, answers: dict[str, tuple[int, Any]], reason: str
) -> None:
    """Each obstacle has a sentence of its own."""
    with stub_server(answers) as url:
        status, lines, error = run("--url", url, "--global")
    assert (status, lines) == (1, [])
    assert reason in error


def test_functions_that_are_disabled(run: Run) -> None:
    """An API key sees no switches of the server's, so the refusal itself has to say it."""
    refused = {"detail": "[ERROR: Error creating function]"}
    answers = {CONFIG: config(), FUNCTIONS: (400, refused)}
    with stub_server(answers) as url:
        error = run("--url", url)[2]
    assert "could not load the file" in error
    assert "ENABLE_FUNCTIONS or ENABLE_PLUGINS is false" in error
