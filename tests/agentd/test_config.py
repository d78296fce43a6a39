from __future__ import annotations

import pytest

from agentd.config import DEFAULT_MAX_LIFETIME_SECONDS, DEFAULT_SESSION_SECONDS, load
from agentd_client.errors import ConfigError
from agentd_client.protocol.methods import NEVER

FORMS = "must be a duration: 90 (seconds), 30m, 8h, 1h30m, 2d or never"


@pytest.fixture(autouse=True)
def environ(tmp_path, monkeypatch):
    for variable in ("AGENTD_SOCKET", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "config" / "agentd").mkdir(parents=True)


@pytest.fixture
def config(tmp_path):
    return tmp_path / "config" / "agentd" / "config.toml"


def test_without_a_file_every_setting_has_its_default(tmp_path):
    settings = load()
    assert settings.socket_path == f"{tmp_path}/run/agentd/agent.sock"
    assert settings.state_path == f"{tmp_path}/state/agentd"
    assert settings.keys_path == tmp_path / "state" / "agentd" / "keys"
    assert settings.store_path == tmp_path / "state" / "agentd" / "store"
    assert (settings.session_expiry, settings.drain_seconds) == (DEFAULT_SESSION_SECONDS, 5.0)
    assert (settings.default_max_lifetime, settings.revoke_on_reuse) == (DEFAULT_MAX_LIFETIME_SECONDS, False)
    assert (settings.log_level, settings.log_format) == ("info", "auto")
    assert settings.audit_uses == "none"


def test_the_file_overrides_the_defaults(config):
    config.write_text(
        'session_expiry = "1h30m"\nsession_max_lifetime = "7d"\nrevoke_on_reuse = true\naudit_uses = "first"\n'
        'drain_seconds = 2\nlog_level = "debug"\nlog_format = "json"\nstate_path = "/s"\nsocket_path = "/k"'
    )
    settings = load()
    assert (settings.session_expiry, settings.drain_seconds) == (5400, 2.0)
    assert (settings.default_max_lifetime, settings.revoke_on_reuse) == (604_800, True)
    assert settings.audit_uses == "first"
    assert (settings.log_level, settings.log_format) == ("debug", "json")
    assert (settings.state_path, settings.socket_path) == ("/s", "/k")


def test_flags_override_the_file(config):
    config.write_text("state_path = '/s'\nsocket_path = '/k'\nlog_level = 'debug'\nlog_format = 'json'")
    settings = load(socket_path="/flag", state_path="/of", log_level="error", log_format="auto")
    assert (settings.socket_path, settings.state_path) == ("/flag", "/of")
    assert (settings.log_level, settings.log_format) == ("error", "auto")


def test_the_environments_socket_overrides_the_files_and_flags_override_both(config, monkeypatch):
    config.write_text("socket_path = '/of/the/file'")
    monkeypatch.setenv("AGENTD_SOCKET", "/of/the/environment")
    assert load().socket_path == "/of/the/environment"
    assert load(socket_path="/flag").socket_path == "/flag"


def test_a_relative_flag_means_the_callers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load(socket_path="here.sock", state_path="there")
    assert (settings.socket_path, settings.state_path) == (f"{tmp_path}/here.sock", f"{tmp_path}/there")


@pytest.mark.parametrize("value", ["8h", 28_800, "28800"])
def test_the_session_expiry_is_seconds_or_a_length_of_time(config, value):
    config.write_text(f"session_expiry = {value!r}\nsession_max_lifetime = {value!r}")
    assert (load().session_expiry, load().default_max_lifetime) == (28_800, 28_800)


def test_never_is_an_expiry_and_a_lifetime(config):
    config.write_text(f"session_expiry = '{NEVER}'\nsession_max_lifetime = '{NEVER}'")
    assert (load().session_expiry, load().default_max_lifetime) == (NEVER, NEVER)


def test_a_longest_lifetime_is_a_limit_only_where_it_is_set(config):
    assert (load().default_max_lifetime, load().session_max_lifetime) == (DEFAULT_MAX_LIFETIME_SECONDS, None)
    config.write_text("session_max_lifetime = '1h'")
    assert (load().default_max_lifetime, load().session_max_lifetime) == (3600, 3600)
    assert load().session_expiry == DEFAULT_SESSION_SECONDS, "the session manager cuts the default short"


@pytest.mark.parametrize(("value", "seconds"), [("'10m'", 600), ("90", 90), (f"'{NEVER}'", None)])
def test_the_idle_time_is_seconds_or_none(config, value, seconds):
    config.write_text(f"lock_after_idle = {value}")
    assert load().idle_seconds == seconds


def test_every_lock_trigger_but_idleness_is_on_by_default(config):
    settings = load()
    assert settings.lock_on_suspend
    assert settings.lock_on_screen_lock
    assert settings.lock_on_signal
    assert settings.idle_seconds is None
    assert not settings.start_locked


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("session_expriy = 1", "session_expriy"),
        ("session_expriy = 1", "the settings are socket_path, state_path, session_expiry"),
        ("session_expiry = 'soon'", f"session_expiry: {FORMS}"),
        ("session_expiry = ''", f"session_expiry: {FORMS}"),
        ("session_expiry = -1", f"session_expiry: {FORMS}"),
        ("session_expiry = true", f"session_expiry: {FORMS}"),
        ("session_expiry = 1.5", f"session_expiry: {FORMS}"),
        ("session_expiry = '40000d'", "session_expiry is over 100 years: '40000d'"),
        ("session_expiry = 99999999999", "session_expiry is over 100 years"),
        ("session_max_lifetime = 'soon'", f"session_max_lifetime: {FORMS}"),
        ("session_max_lifetime = false", f"session_max_lifetime: {FORMS}"),
        ("session_max_lifetime = '40000d'", "session_max_lifetime is over 100 years: '40000d'"),
        ("revoke_on_reuse = 'true'", "revoke_on_reuse is true or false, without quotes, not 'true'"),
        ("revoke_on_reuse = 1", "revoke_on_reuse is true or false"),
        ("revoke_on_reuse = ''", "revoke_on_reuse is true or false"),
        ("audit_uses = 'some'", "audit_uses is one of none, first, all, not 'some'"),
        ("audit_uses = true", "audit_uses is one of none, first, all"),
        ("lock_on_suspend = 'yes'", "lock_on_suspend is true or false"),
        ("lock_on_screen_lock = 0", "lock_on_screen_lock is true or false"),
        ("lock_on_signal = 1", "lock_on_signal is true or false"),
        ("start_locked = 'no'", "start_locked is true or false"),
        ("lock_after_idle = 'soon'", f"lock_after_idle: {FORMS}"),
        ("lock_after_idle = 0", "lock_after_idle is 0; write 'never' for no limit"),
        ("lock_after_idle = '0m'", "lock_after_idle is 0; write 'never' for no limit"),
        ("session_expiry = 0", "session_expiry is 0; write 'never' for no limit"),
        ("session_max_lifetime = '0d'", "session_max_lifetime is 0; write 'never' for no limit"),
        (
            "session_expiry = '2h'\nsession_max_lifetime = '1h'",
            "session_expiry (2 h) is longer than session_max_lifetime (1 h); shorten it, or leave it out",
        ),
        (
            "session_expiry = 'never'\nsession_max_lifetime = '1h'",
            "session_expiry (never) is longer than session_max_lifetime (1 h)",
        ),
        ("passphrase_file = ''", "passphrase_file is empty"),
        ("passphrase_file = 'secret'", "passphrase_file is not an absolute path"),
        ("drain_seconds = -1", "drain_seconds is seconds from 0 to 3600"),
        ("drain_seconds = 3601", "drain_seconds"),
        ("drain_seconds = nan", "drain_seconds"),
        ("drain_seconds = inf", "drain_seconds"),
        ("drain_seconds = true", "drain_seconds"),
        ("drain_seconds = '5'", "drain_seconds"),
        ("log_level = 'loud'", "log_level is one of debug, info, warning, error, not 'loud'"),
        ("log_level = ''", "log_level is one of"),
        ("log_level = []", "log_level is one of"),
        ("log_format = 'xml'", "log_format is one of auto, json, not 'xml'"),
        ("state_path = ''", "state_path is empty"),
        ("socket_path = ''", "socket_path is empty"),
        ('state_path = "/a\\u0000b"', "state_path is not a path"),
        ("state_path = 'here'", "state_path is not an absolute path"),
        ("socket_path = '~/agent.sock'", "socket_path is not an absolute path"),
        ("socket_path = 5", "socket_path"),
        ("= 1", "is not TOML"),
        ("session_expiry = " + "1" * 5000, "is not TOML"),
        ("log_level = 'info'\nlog_level = 'info'", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_refused_and_named_with_its_file(config, text, named):
    config.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load()
    assert str(config) in refused.value.sentence
    assert named in refused.value.sentence
    assert "$" not in refused.value.sentence


# --- the sockets for others ---


@pytest.fixture(params=["verify", "ask"])
def kind(request):
    return request.param


def test_there_is_no_socket_for_others_unless_it_has_a_path(kind):
    assert getattr(load(), f"{kind}_socket").path == ""


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ("", "0600"),
        ("GROUP = 'agents'", "0660"),
        ("MODE = '0600'", "0600"),
        ("MODE = '0660'", "0660"),
        ("MODE = '0666'", "0666"),
        ("GROUP = 'agents'\nMODE = '0660'", "0660"),
        ("GROUP = 'agents'\nMODE = '0666'", "0666"),
    ],
)
def test_only_the_owner_may_connect_to_it_by_default(config, kind, more, mode):
    config.write_text(settings_of(kind, f"PATH = '/run/agentd-me/s.sock'\n{more}"))
    group = "agents" if "GROUP" in more else ""
    shared = getattr(load(), f"{kind}_socket")
    assert shared == (f"{kind}_socket", "/run/agentd-me/s.sock", group, mode)
    other = "ask" if kind == "verify" else "verify"
    assert getattr(load(), f"{other}_socket") == (f"{other}_socket", "", "", "0600")


def settings_of(kind: str, text: str) -> str:
    for part in ("PATH", "GROUP", "MODE"):
        text = text.replace(part, f"{kind}_socket_{part.lower()}")
    return text


_DOOR = "PATH = '/d/s.sock'\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("PATH = 's.sock'", "PATH is not an absolute path"),
        ("PATH = ''", "PATH is empty"),
        ("PATH = true", "PATH is not a path"),
        *(
            (f"{_DOOR}MODE = {mode}", "MODE is one of 0600, 0660, 0666, not ")
            for mode in (
                "'0777'",
                "'0770'",
                "'0644'",
                "'0640'",
                "'660'",
                "'4660'",
                "0o660",
                "660",
                "''",
                "'rw'",
            )
        ),
        (f"{_DOOR}GROUP = ''", "GROUP is the name of a group, not ''"),
        (f"{_DOOR}GROUP = 1000", "GROUP is the name of a group, not 1000"),
        ("GROUP = 'agents'", "GROUP has no effect without PATH"),
        ("MODE = '0660'", "MODE has no effect without PATH"),
        (f"{_DOOR}GROUP = 'agents'\nMODE = '0600'", "MODE 0600 keeps GROUP out"),
        (f"{_DOOR}socket_path = '/d/../d/s.sock'", "PATH is the path of the agent's own socket"),
    ],
)
def test_a_socket_for_others_that_is_not_clear_is_refused(config, kind, text, named):
    config.write_text(settings_of(kind, text))
    with pytest.raises(ConfigError) as refused:
        load()
    assert str(config) in refused.value.sentence
    assert settings_of(kind, named) in refused.value.sentence


def test_the_two_have_paths_of_their_own(config):
    config.write_text("verify_socket_path = '/d/s.sock'\nask_socket_path = '/d/../d/s.sock'\n")
    with pytest.raises(
        ConfigError, match="ask_socket_path is the path in verify_socket_path; choose another one"
    ):
        load()


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ({"socket_path": ""}, "--socket: socket_path is empty"),
        ({"state_path": ""}, "--state: state_path is empty"),
        ({"config_path": ""}, "--config is empty"),
        ({"log_level": "loud"}, "--log-level: log_level is one of debug, info"),
        ({"log_format": ""}, "--log-format: log_format is one of auto, json"),
    ],
)
def test_a_flag_that_is_wrong_is_named_and_the_file_is_not_blamed(config, flag, named):
    with pytest.raises(ConfigError) as refused:
        load(**flag)
    assert named in refused.value.sentence
    assert str(config) not in refused.value.sentence


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbflog_level = 'error'\n",
        b"log_level = 'error'\r\nstart_locked = false\r\n",
        b"\xef\xbb\xbf# caf\xc3\xa9\r\nlog_level = 'error'",
    ],
)
def test_a_file_as_editors_write_it_can_be_used(config, content):
    config.write_bytes(content)
    assert load().log_level == "error"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"log_level = 'info'\n# caf\xe9\n",
            "is not UTF-8: line 2 has the byte 0xe9, as in Latin-1 .* UTF-8$",
        ),
        (b"log_level = '\xff'", "is not UTF-8: line 1 has the byte 0xff"),
        ("log_level = 'info'".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"log_level = 'info'\rstart_locked = false\r", "ends its lines with CR alone; save it"),
        (b"#" * (1024 * 1024 + 1), "has more than 1048576 bytes"),
    ],
)
def test_a_file_of_another_encoding_is_refused_with_the_place(config, content, reason):
    config.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as refused:
        load()
    assert str(config) in refused.value.sentence


def test_a_device_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="/dev/zero has more than"):
        load("/dev/zero")


def test_a_file_that_was_named_has_to_be_there(tmp_path):
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="missing.toml does not exist"):
        load(missing)


def test_a_named_file_is_read_in_place_of_the_usual_one(config, tmp_path):
    config.write_text("log_level = 'debug'")
    other = tmp_path / "other.toml"
    other.write_text("log_level = 'error'")
    assert load(str(other)).log_level == "error"
    other.write_text("log_level = 'loud'")
    with pytest.raises(ConfigError, match="other.toml"):
        load(str(other))


def test_an_unreadable_file_is_refused(config):
    config.mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: Is a directory"):
        load()


@pytest.mark.parametrize("value", ["'hunter2'", "12345678", "['hunter2']"])
def test_a_passphrase_in_the_place_of_its_files_path_is_not_repeated(tmp_path, value):
    settings = tmp_path / "config.toml"
    settings.write_text(f"passphrase_file = {value}\n")
    with pytest.raises(ConfigError, match="passphrase_file is not an? (absolute )?path") as refused:
        load(str(settings))
    assert "hunter2" not in refused.value.sentence
    assert "12345678" not in refused.value.sentence
