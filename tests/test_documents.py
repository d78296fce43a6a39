"""What the documents say about the code is so: limits, errors, worked bytes, the tests of promises, paths and links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agentd_client import errors
from agentd_client.protocol import limits, methods, reasons, results
from agentd_client.protocol.codec import Decoder, Encoder, Notification, Request, Response
from agentd_client.protocol.methods import camel

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "client" / "README.md"]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()

OTHER_NAMES = {"agentd.service", "agentd.socket", "agentd.toml", "agentd.passphrase"}
"""What looks like a module and is none: units, a manual page, a credential."""

FILES = {"agentd.lock", "agentd.service", "agentd.socket", "data.mdb", "lock.mdb"}
"""What looks like a finding of the doctor and is a file."""

LIMITS = {
    "one message": [limits.MAX_MESSAGE_BYTES],
    "items of one array or map": [limits.MAX_CONTAINER_ITEMS],
    "arrays and maps of one message": [limits.MAX_CONTAINERS],
    "nesting of containers, the message included": [limits.MAX_NESTING],
    "a method's name": [limits.MAX_METHOD_CHARACTERS],
    "a token": [limits.MAX_TOKEN_CHARACTERS],
    "a label": [limits.MAX_LABEL_CHARACTERS],
    "a pattern for labels": [limits.MAX_LABEL_CHARACTERS],
    "a passphrase": [limits.MAX_PASSPHRASE_BYTES],
    "scopes of one session or request": [limits.MAX_SCOPES, limits.MAX_SCOPE_CHARACTERS],
    "names of an audience": [limits.MAX_AUDIENCES, limits.MAX_AUDIENCE_CHARACTERS],
    "uses": [limits.MAX_USES],
    "the grace period of a reset": [limits.MAX_GRACE_SECONDS],
    "ancestors of a session": [limits.MAX_DEPTH],
    "sessions of one page": [limits.MAX_PAGE_SESSIONS],
    "audit entries of one page": [limits.MAX_PAGE_AUDIT],
    "sessions or audit entries examined for one page": [limits.MAX_EXAMINED],
    "an executable's path, a unit's name": [limits.MAX_SHOWN_CHARACTERS],
    "events waiting for one subscriber": [limits.MAX_EVENTS_WAITING],
    "requests in flight on one connection": [limits.MAX_IN_FLIGHT],
    "connections": [limits.MAX_CONNECTIONS],
    "connections to the verify socket, and to the ask socket": [
        *{limits.MAX_VERIFY_CONNECTIONS, limits.MAX_ASK_CONNECTIONS}
    ],
    "of those, from one user": [*{limits.MAX_VERIFY_CONNECTIONS_OF_UID, limits.MAX_ASK_CONNECTIONS_OF_UID}],
    "time from a message's first byte to its last": [int(limits.MESSAGE_SECONDS)],
    "time for a client to take a reply": [int(limits.REPLY_SECONDS)],
}
"""What each row of the table of limits says, by the row's first cell."""

NEVER_ANSWERED = {
    *("ERROR", "REQUEST", "LIFECYCLE"),  # no error by itself: the parent of others
    *("AGENT_UNREACHABLE", "AGENT_TIMEOUT", "OUTCOME_UNKNOWN", "FOREIGN_AGENT", "CLIENT_CLOSED"),
    *("PROTOCOL", "VERSIONS_DIFFER", "ENVIRONMENT", "INVALID_TOKEN", "TOKEN_FILE", "TOKEN_FILE_BUSY"),
    "ORIGIN_NOT_ALLOWED",
    *("ALREADY_SERVING", "SOCKET_PATH", "STATE_FOLDER", "CONFIG"),
    *("STORE_IN_USE", "STORE_KEY_MISMATCH", "INVALID_PATH"),
    *("TRANSACTION_CONFLICT", "TRANSACTION_ENDED", "FOREIGN_TRANSACTION", "WRONG_LOOP"),
    *("SESSION_RUNNING", "SESSION_DESTROYED", "SESSION_MANAGER_RUNNING", "SESSION_MANAGER_DESTROYED"),
    *("DB_RUNNING", "DB_DESTROYED", "KEY_RING_RUNNING", "KEY_RING_DESTROYED", "KEY_RING_NOT_RUNNING"),
}
"""Errors of the client, of the agent's start, and of a program that embeds the core."""


def section(title: str) -> str:
    return PROTOCOL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below a header."""
    found = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in found]


def test_every_limit_in_the_document_is_the_one_in_the_code():
    documented = {
        what: [int(number.replace(",", "")) for number in re.findall(r"(?<![(\w])\d[\d,]*", limit)]
        for what, limit, _ in rows(section("Limits"))
        if what != "what"
    }
    assert documented == LIMITS
    assert f"{limits.MAX_EXPIRY_SECONDS:,}" in section("Methods")


def test_the_protocol_document_lists_every_error_that_an_agent_answers_with():
    documented = re.findall(r"^\| (\d+) \| `(\w+)` \|", section("Errors"), re.MULTILINE)
    answered = {code: error.number for code, error in errors.ERRORS.items() if code not in NEVER_ANSWERED}
    assert {code: int(number) for number, code in documented} == answered
    assert set(errors.ERRORS) >= NEVER_ANSWERED


def test_every_reason_is_documented():
    codes = {name for name in vars(reasons) if name.isupper()} - {"SENTENCES", "ENDINGS"}
    assert codes == {*reasons.SENTENCES, *reasons.ENDINGS}
    for ending in reasons.ENDINGS:
        assert f"`{ending}`" in section("Events") + section("Methods")
    assert set(reasons.SENTENCES) == set(re.findall(r"^\| `([A-Z_]+)` \|", section("Methods"), re.MULTILINE))


def test_every_kind_of_event_and_every_method_is_documented():
    assert {*results.EVENT_KINDS, results.MISSED} == set(
        re.findall(r"^\| `(\w+)` \| [^|]+ \|$", section("Events"), re.MULTILINE)
    )
    named = {method.name for method in vars(methods).values() if isinstance(method, methods.Method)}
    assert named == set(re.findall(r"^### (\w+)$", section("Methods"), re.MULTILINE))
    for reason in results.LOCK_REASONS:
        assert f'`"{reason}"`' in section("Methods")


@pytest.mark.parametrize(
    ("heading", "header", "result"),
    [
        ("### hello", "result", results.Hello),
        ("### getStatus", "result", results.Status),
        ("### createToken", "result", results.CreatedToken),
        ("### verifyToken", "result", results.Verification),
        ("### A session", "field", results.SessionInfo),
        ("### listSessions", "result", results.SessionPage),
        ("### revokeToken", "result", results.Revocation),
        ("### revokeSessions", "result", results.Revocations),
        ("### resetKey", "result", results.KeyReset),
        ("### listAudit", "result", results.AuditPage),
        ("### listAudit", "field of an entry", results.AuditEntry),
        ("### lock", "result", results.LockState),
        ("### unlock", "result", results.LockState),
        ("### changePassphrase", "result", results.Protection),
        ("### subscribe", "result", results.Subscribed),
        ("## The verify socket", "result", results.Verdict),
        ("## Events", "field", results.Event),
    ],
)
def test_every_field_of_a_result_is_documented(heading, header, result):
    text = PROTOCOL.partition(f"\n{heading}\n")[2].partition("\n##")[0]
    table = text.partition(f"| {header} | type | |\n")[2].partition("\n\n")[0]
    named = [name for cell, *_ in rows(table) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(map(camel, result._fields))


def test_the_methods_that_may_be_repeated_are_those_that_the_clients_repeat():
    changing, repeatable = section("What a client may repeat").rpartition("\n\n")[::2]
    every = {method for method in vars(methods).values() if isinstance(method, methods.Method)}
    names = {kind: {method.name for method in every if method.repeatable is kind} for kind in (True, False)}
    assert names[True] & names[False] == {"requestToken"}, "with an id it only waits"
    for name in names[True] | names[False]:
        assert (f"`{name}`" in changing) == (name in names[True]), name
        assert (f"`{name}`" in repeatable) == (name in names[False]), name


def test_the_worked_bytes_decode_to_the_messages_they_stand_under():
    shown_bytes = section("Worked bytes") + section("The verify socket") + section("Events")
    blocks = re.findall(r"`(\[[0-2], [^`]+)`[^`]*?:\n\n    ([0-9a-f ]+)\n", shown_bytes)
    assert len(blocks) == 9
    for shown, bytes_ in blocks:
        (message,) = Decoder().receive(bytes.fromhex(bytes_))
        kind = {Request: 0, Response: 1, Notification: 2}[type(message)]
        python = shown.replace("nil", "None").replace("false", "False").replace("true", "True")
        assert [kind, *message] == ast.literal_eval(python)


def test_a_verification_begins_as_a_client_without_a_decoder_expects():
    (hex_,) = re.findall(
        r'A "valid" to the same request begins with `([0-9a-f ]+) 8x ([0-9a-f ]+)`', PROTOCOL
    )
    before, after = map(bytes.fromhex, hex_)
    for result in (results.Verification, results.Verdict):
        valid = result(**dict.fromkeys(result._fields) | {"valid": True})
        encoded = Encoder().result(3, {camel(name): value for name, value in valid._asdict().items()})
        assert encoded[: len(before)] + encoded[len(before) + 1 :][: len(after)] == before + after
        assert 0x83 <= encoded[len(before)] <= 0x8F
        assert result._fields[:2] == ("valid", "reason")


def test_the_operations_list_every_finding_of_the_doctor():
    chapter = (
        (ROOT / "docs" / "operations.md").read_text().partition("\n## The doctor\n")[2].partition("\n## ")[0]
    )
    listed = re.findall(r"`([a-z]+\.[a-z]+)`", "".join(re.findall(r"^\| (`.*`) \|", chapter, re.MULTILINE)))
    sources = "".join(path.read_text() for path in (ROOT / "agentd" / "doctor").glob("*.py"))
    named = set(re.findall(r'"([a-z]+\.[a-z]+)"', sources)) - FILES
    assert set(listed) == named
    assert len(listed) == len(named)


def test_every_promise_names_tests_that_exist():
    promised = SECURITY.partition("\n## Promises\n")[2].partition("\n## ")[0]
    promises = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^### |\Z)", promised, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in promises] == list(range(1, len(promises) + 1))
    for number, text in promises:
        _, _, named = text.partition("\n   Tests: " if int(number) < 10 else "\n    Tests: ")
        names = re.findall(r"`([^`]+)`", named)
        assert names, number
        for name in names:
            path, _, function = name.partition("::")
            functions = defined_in(ROOT / path)
            assert functions, name
            assert not function or function in functions, name


def defined_in(path: Path) -> set[str]:
    if path.suffix != ".py" or not path.exists():
        return set()
    body = ast.parse(path.read_text()).body
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_module_that_a_document_names_exists(document):
    if document.name == "CHANGELOG.md":  # it tells of what was
        return
    text = document.read_text()
    for path in re.findall(
        r"`((?:agentd|client|docs|systemd|tests|\.ci)/[\w./-]*|pyproject\.toml|Makefile)[`:]", text
    ):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"`(agentd(?:_client)?(?:\.[a-z_]+)+)`", text):
        if module not in OTHER_NAMES:
            path = module.replace(".", "/")
            places = [parent / name for parent in (ROOT, ROOT / "client") for name in (path, f"{path}.py")]
            assert any(place.exists() for place in places), module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", document.read_text()):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
            assert anchor.removeprefix("#") in slugs, anchor


def test_the_recipes_are_listed_and_tested():
    recipes = ROOT / "docs" / "recipes"
    pages = {page.name for page in recipes.glob("*.md")} - {"README.md"}
    listed = re.findall(r"^\| \[[^]]+\]\(([\w-]+\.md)\)", (recipes / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert {page for page in pages if f'"{page}"' not in tests} == set()


BY_NAME = re.compile(
    r"\b(?:pip|pipx|uv pip|uv tool|uvx|pipx run|uv tool run)\s(?:install\s)?[^\n`]*?(?<![\w/.-])agentd(?:-\w+)?\b"
)


def test_nothing_has_agentd_installed_by_a_name_that_others_could_take():
    for wrong in (
        "pip install agentd",
        "pipx install 'agentd-daemon[logind]'",
        "uvx agentd",
        "uv tool install -U agentd",
    ):
        assert BY_NAME.search(wrong), wrong
    programs = [path for folder in ("agentd", "client") for path in (ROOT / folder).rglob("*.py")]
    for path in [*DOCUMENTS, *programs, *ROOT.glob("*/man/*")]:
        text = re.sub(r"\b(?:uninstall|inject)\b.*", "", path.read_text())
        assert not BY_NAME.search(text), path
