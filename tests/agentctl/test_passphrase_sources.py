"""Files, descriptors and programs that give a passphrase: what is taken, and what is refused with a remedy."""

from __future__ import annotations

import os
import shutil
import socket
import sys

import pytest

from agentd_client.cli.passphrase import asker
from agentd_client.passphrase_input import PassphraseSourceError, wipe
from tests.agentctl.running import in_conversation, in_process, process

SECRET = "correct hörse"


@pytest.fixture
def path(folder):
    return folder / "passphrase"


def private(path, content: bytes = SECRET.encode()):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def ask(**given: object) -> bytes:
    options = dict.fromkeys(("passphrase_fd", "passphrase_file", "askpass", "pinentry"))
    return bytes(asker(options | given).ask("", ""))


def ask_file(path) -> bytes:
    return ask(passphrase_file=str(path))


def ask_descriptor(content: bytes) -> bytes:
    ours, theirs = os.pipe()
    try:
        os.write(theirs, content)
        os.close(theirs)
        return ask(passphrase_fd=ours)
    finally:
        os.close(ours)


CONTENTS = [
    (b"secret", b"secret"),
    (b"secret\n", b"secret"),
    (b"secret\n\n", b"secret\n"),
    (b" two words\r\n", b" two words\r"),
    (b"x" * 1024 + b"\n", b"x" * 1024),
]


@pytest.mark.parametrize(("content", "passphrase"), CONTENTS)
def test_one_newline_at_the_end_is_taken_off_and_nothing_else(path, content, passphrase):
    assert ask_file(private(path, content)) == passphrase
    assert ask_descriptor(content) == passphrase


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "an empty passphrase"), (b"\n", "an empty passphrase"), (b"s" * 1025, "1024")],
)
def test_what_is_empty_or_too_long_is_refused_by_the_name_of_its_source(path, content, reason):
    with pytest.raises(PassphraseSourceError, match=f"passphrase file {path}: .*{reason}"):
        ask_file(private(path, content))
    with pytest.raises(PassphraseSourceError, match=f"file descriptor [0-9]+: .*{reason}") as refused:
        ask_descriptor(content)
    assert "sss" not in refused.value.sentence


def test_a_file_that_others_can_read_is_refused_with_the_remedy(path):
    private(path).chmod(0o640)
    with pytest.raises(PassphraseSourceError, match=rf"mode 0640\); run `chmod 600 {path}`"):
        ask_file(path)


def test_what_is_no_regular_file_is_refused_at_once(path):
    os.mkfifo(path, 0o600)
    with pytest.raises(PassphraseSourceError, match="not a regular file"):
        ask_file(path)
    with pytest.raises(PassphraseSourceError, match="not a regular file"):
        ask_file(path.parent)


def test_a_symbolic_link_is_refused(path, folder):
    private(folder / "real")
    path.symlink_to(folder / "real")
    with pytest.raises(PassphraseSourceError, match="symbolic link; name the file"):
        ask_file(path)


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    private(path)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PassphraseSourceError, match="belongs to uid"):
        ask_file(path)


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(PassphraseSourceError, match=f"{path} cannot be read: No such file"):
        ask_file(path)


def test_a_descriptor_that_is_not_open_is_named():
    with pytest.raises(
        PassphraseSourceError, match="file descriptor 999 cannot be read: Bad file descriptor"
    ):
        ask(passphrase_fd=999)


def test_a_descriptor_that_is_a_terminal_would_show_what_is_typed(agent):
    agent.passphrase, agent.locked = b"x", True
    ended = in_conversation("unlock", "--passphrase-fd", "0", answers=[])
    assert ended.code == 77
    assert "is a terminal" in ended.shown


def test_a_descriptor_is_read_to_its_end_however_it_comes():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"sec")
        theirs.sendall(b"ret")
        theirs.shutdown(socket.SHUT_WR)
        assert ask(passphrase_fd=ours.fileno()) == b"secret"


def test_wiping_leaves_zeros():
    secret = bytearray(b"secret")
    wipe(secret)
    assert secret == bytes(6)


def script(path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def locked(agent):
    agent.passphrase, agent.locked = SECRET.encode(), True
    return agent


ASKS = "import sys\nassert sys.argv[1:] == ['Passphrase of agentd: ']\nprint('correct hörse')"


def test_an_askpass_program_gets_the_question_and_prints_the_answer(locked, path):
    ended = in_process("unlock", "--askpass", script(path, ASKS))
    assert ended == (0, "locked\tfalse\n", "")


def test_without_a_terminal_the_program_of_the_variable_asks(locked, path):
    environ = os.environ | {"AGENTD_ASKPASS": script(path, ASKS)}
    assert process("unlock", start_new_session=True, env=environ).returncode == 0


def test_a_terminal_is_asked_before_the_program_of_the_variable(locked, path):
    answers = [(b"Passphrase of agentd: ", SECRET.encode() + b"\n")]
    assert in_conversation("unlock", answers=answers, AGENTD_ASKPASS="/nonexistent").code == 0


def test_an_askpass_program_is_asked_twice_for_a_new_passphrase(agent, folder, path):
    asked = folder / "asked"
    program = script(path, f"import sys\nopen({str(asked)!r}, 'a').write(sys.argv[1] + '|')\nprint('new')")
    assert in_process("passwd", "--askpass", program).code == 0
    assert agent.passphrase == b"new"
    assert asked.read_text() == "New passphrase of agentd: |The new passphrase again: |"


TOKENS = {"AGENTD_TOKEN": "v4.local.x", "AGENTD_TOKEN_FD": "9", "AGENTD_SESSION_TOKEN_PATH": "/x"}
"""What hands a token over, which is no business of a program that asks for a passphrase."""


def test_an_askpass_program_inherits_no_token(folder, path, monkeypatch):
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AGENTD_SOCKET", "/kept")
    text = "import os\nprint(sorted(name for name in os.environ if name.startswith('AGENTD_')))"
    assert ask(askpass=script(path, text)) == b"['AGENTD_SOCKET']"


def test_a_wrong_answer_of_a_program_is_tried_once(locked, path):
    ended = in_process("unlock", "--askpass", script(path, "print('hunter2')"))
    assert ended == (77, "", "agentctl: that is not the passphrase of the key file\n")
    assert locked.methods == ["getStatus", "unlock"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit(1)", r"gave no passphrase \(exit code 1\)"),
        ("print('secret'); raise SystemExit(3)", r"gave no passphrase \(exit code 3\)"),
        ("pass", "an empty passphrase"),
        ("print('s' * 100_000)", "more than 1024 bytes|exit code"),
    ],
)
def test_a_program_that_gives_none_is_named(path, text, reason):
    with pytest.raises(PassphraseSourceError, match=reason) as refused:
        ask(askpass=script(path, text))
    assert str(path) in refused.value.sentence
    assert "sss" not in refused.value.sentence


def test_a_program_that_cannot_be_started_is_named():
    with pytest.raises(PassphraseSourceError, match="/nonexistent cannot be started: No such file"):
        ask(askpass="/nonexistent")


# --- pinentry ---------------------------------------------------------------------------------------

PINENTRY = """
import sys
print("OK Pleased to meet you", flush=True)
for line in sys.stdin:
    with open(sys.argv[0] + ".log", "a") as log:
        log.write(line)
    if line.startswith("GETPIN"):
        ANSWER
    elif line.startswith("OPTION"):
        print("ERR 83886254 Unknown option <Pinentry>", flush=True)
    else:
        print("OK", flush=True)
"""


@pytest.fixture
def pinentry(folder, monkeypatch):
    """Makes `pinentry` a program that answers GETPIN so; gives the file in which it keeps what it was told."""
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(answer: str):
        program = script(folder / "pinentry", PINENTRY.replace("ANSWER", answer))
        return type(folder)(program + ".log")

    return make


def test_pinentry_is_told_what_to_ask_and_its_answer_is_decoded(locked, pinentry):
    locked.passphrase = "100% of a\rtwo-line\npässphrase+ %zz".encode()
    said = "print('S PROGRESS\\n# a comment\\nD 100%25 of a%0Dtwo-line%0Ap\\u00e4ss\\nD phrase+ %25zz\\nOK', flush=True)"
    log = pinentry(said)
    ended = in_process("unlock", "--pinentry")
    assert ended == (0, "locked\tfalse\n", "")
    told = [line for line in log.read_text().splitlines() if not line.startswith("OPTION")]
    assert told == [
        "SETTITLE agentd",
        "SETDESC Passphrase of agentd",
        "SETPROMPT Passphrase:",
        "GETPIN",
    ]


def test_pinentry_inherits_no_token(locked, pinentry, monkeypatch):
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    log = pinentry(
        "import os; print('ERR 1', sorted(name for name in os.environ if name.startswith('AGENTD_')), flush=True)"
    )
    assert in_process("unlock", "--pinentry").err == "agentctl: pinentry gave no passphrase: []\n"
    assert log.exists()


def test_pinentry_asks_again_and_shows_what_was_wrong(locked, pinentry):
    log = pinentry("print('D hunter2\\nOK', flush=True)")
    ended = in_process("unlock", "--pinentry")
    assert ended == (77, "", "agentctl: that is not the passphrase of the key file\n")
    shown = [line for line in log.read_text().splitlines() if line.startswith("SETERROR")]
    assert (
        shown
        == [
            "SETERROR that is not the passphrase of the key file; the agent waits a little before the next try"
        ]
        * 2
    )
    assert locked.methods == ["getStatus", *["unlock"] * 3]


@pytest.mark.parametrize("number", [83886179, 99, 83886278])
def test_a_dialogue_that_is_cancelled_ends_quietly(locked, pinentry, number):
    pinentry(f"print('ERR {number} Operation cancelled <Pinentry>', flush=True)")
    assert in_process("unlock", "--pinentry") == (130, "", "")
    assert locked.methods == ["getStatus"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("print('ERR 83886142 Timeout <Pinentry>', flush=True)", "gave no passphrase: Timeout <Pinentry>"),
        ("print('ERR 5', flush=True)", "gave no passphrase: 5"),
        ("raise SystemExit", "ended without an answer"),
        (
            "print('INQUIRE QUALITY', flush=True); assert input() == 'CAN'; print('ERR 7 no', flush=True)",
            "no",
        ),
        ("print('D ' + 's' * 600 + chr(10) + 'D ' + 's' * 600 + chr(10) + 'OK', flush=True)", "at most 1024"),
        ("print('x' * 5000, flush=True)", "does not speak the Assuan protocol"),
        ("print('D s%zz', flush=True)", "does not speak the Assuan protocol"),
        ("print('D s%', flush=True)", "does not speak the Assuan protocol"),
    ],
)
def test_a_pinentry_that_cannot_ask_is_an_error(pinentry, answer, reason):
    pinentry(answer)
    with pytest.raises(PassphraseSourceError, match=reason) as refused:
        ask(pinentry=True)
    assert "sss" not in refused.value.sentence


def test_a_pinentry_that_goes_away_while_it_is_spoken_to_is_an_error(folder, pinentry):
    pinentry("")
    script(folder / "pinentry", "import os, sys\nos.close(0)\nprint('OK', flush=True)\nsys.stdout.close()")
    with pytest.raises(PassphraseSourceError, match="pinentry (went away|ended)"):
        ask(pinentry=True)


def test_an_empty_answer_of_pinentry_is_no_passphrase(locked, pinentry):
    pinentry("print('OK', flush=True)")
    ended = in_process("unlock", "--pinentry")
    assert ended.code == 77
    assert "an empty passphrase protects nothing" in ended.err
    assert locked.methods == ["getStatus"]


def test_without_pinentry_it_says_so(locked, folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    ended = in_process("unlock", "--pinentry")
    assert ended == (
        77,
        "",
        "agentctl: pinentry is not installed; leave out --pinentry to be asked on the terminal\n",
    )
    (folder / "pinentry").write_text("no program")
    (folder / "pinentry").chmod(0o700)
    assert "pinentry cannot be started: Exec format error" in in_process("unlock", "--pinentry").err


@pytest.fixture
def real_pinentry(folder, monkeypatch):
    real = shutil.which("pinentry-tty")
    if real is None:
        pytest.skip("pinentry-tty is not installed")
    (folder / "pinentry").symlink_to(real)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_real_pinentry_that_is_cancelled_ends_quietly(locked, real_pinentry):
    ended = in_conversation("unlock", "--pinentry", answers=[(b"Passphrase:", b"\x04")])
    assert ended.code == 130
    assert "agentctl:" not in ended.shown
    assert locked.methods == ["getStatus"]


def test_a_real_pinentry_asks_on_the_terminal(locked, real_pinentry):
    ended = in_conversation(
        "unlock",
        "--pinentry",
        answers=[(b"Passphrase:", b"100% wrong\n"), (b"Passphrase:", SECRET.encode() + b"\n")],
    )
    assert ended.code == 0
    assert "wrong" not in ended.shown
    assert SECRET not in ended.shown
    assert "that is not the passphrase of the key file" in ended.shown
    assert [call[1]["passphrase"] for call in locked.calls if call[0] == "unlock"] == [
        b"100% wrong",
        SECRET.encode(),
    ]
