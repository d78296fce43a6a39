from __future__ import annotations

import pytest

from agentd_client import errors
from agentd_client.errors import ERRORS, FAILED, INVALID, AgentdError

EVERY_ERROR = list(ERRORS.values())


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_has_a_code_and_a_sentence_of_its_own(error: type[AgentdError]) -> None:
    assert "code" in vars(error)
    assert error.code == error.code.upper()
    assert error.__name__.endswith("Error")
    assert len(error().sentence) > 10
    assert not error().sentence.endswith(".")


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_a_sentence_that_is_given_is_the_one_that_is_shown(error: type[AgentdError]) -> None:
    assert str(error("so it was")) == error("so it was").sentence == "so it was"


def test_the_number_says_whose_fault_it_is() -> None:
    assert (FAILED, INVALID) == (0, 1), "what Neovim knows as errors"
    assert {error.code for error in EVERY_ERROR if error.number == INVALID} == {
        "UNKNOWN_METHOD",
        "INVALID_MESSAGE",
        "INVALID_PARAMS",
        "INVALID_EXPIRY",
        "INVALID_LABEL",
        "INVALID_TOKEN",
        "INVALID_SCOPES",
        "INVALID_AUDIENCE",
        "INVALID_USES",
        "INVALID_GRACE",
        "PARENT_NOT_VALID",
        "NOT_WITHIN_PARENT",
        "APPROVAL_REQUIRED",
        "DENIED",
        "NO_SUCH_REQUEST",
        "NOT_WITHIN_REQUEST",
        "OWN_REQUEST",
        "NOT_GRANTABLE",
        "INVALID_REASON",
        "TOKEN_NOT_VALID",
        "INVALID_PATH",
        "PASSPHRASE",
        "ORIGIN_NOT_ALLOWED",
    }
    assert {error.number for error in EVERY_ERROR} == {FAILED, INVALID}


def test_errors_can_be_caught_as_what_python_calls_them() -> None:
    assert issubclass(errors.AgentTimeoutError, TimeoutError)
    for error in (
        errors.InvalidExpiryError,
        errors.InvalidLabelError,
        errors.InvalidTokenError,
        errors.InvalidScopesError,
        errors.InvalidAudienceError,
        errors.InvalidUsesError,
        errors.InvalidGraceError,
    ):
        assert issubclass(error, ValueError)
    assert issubclass(errors.TokenFileBusyError, errors.TokenFileError)


def test_the_codes_are_stable() -> None:
    # Foreign clients know them by these names: add to the list, never change it.
    assert set(ERRORS) == {
        "ERROR",
        "REQUEST",
        "UNKNOWN_METHOD",
        "INVALID_MESSAGE",
        "INVALID_PARAMS",
        "INTERNAL",
        "STOPPING",
        "INVALID_EXPIRY",
        "INVALID_LABEL",
        "INVALID_TOKEN",
        "INVALID_SCOPES",
        "INVALID_AUDIENCE",
        "INVALID_USES",
        "INVALID_GRACE",
        "PARENT_NOT_VALID",
        "NOT_WITHIN_PARENT",
        "APPROVAL_REQUIRED",
        "DENIED",
        "NO_SUCH_REQUEST",
        "NOT_WITHIN_REQUEST",
        "OWN_REQUEST",
        "NOT_GRANTABLE",
        "INVALID_REASON",
        "REQUEST_EXPIRED",
        "TOO_MANY_REQUESTS",
        "TOKEN_NOT_VALID",
        "CANNOT_BIND",
        "LOCKED",
        "STORE_FAILED",
        "STORE_FULL",
        "STORE_DAMAGED",
        "STORE_IN_USE",
        "STORE_KEY_MISMATCH",
        "INVALID_PATH",
        "TRANSACTION_CONFLICT",
        "TRANSACTION_ENDED",
        "FOREIGN_TRANSACTION",
        "KEY_FILE",
        "KEY_UNAVAILABLE",
        "PASSPHRASE",
        "NO_PASSPHRASE",
        "TOO_MANY_ATTEMPTS",
        "LIFECYCLE",
        "WRONG_LOOP",
        "SESSION_RUNNING",
        "SESSION_DESTROYED",
        "SESSION_MANAGER_RUNNING",
        "SESSION_MANAGER_DESTROYED",
        "SESSION_MANAGER_NOT_RUNNING",
        "DB_RUNNING",
        "DB_DESTROYED",
        "DB_NOT_RUNNING",
        "KEY_RING_RUNNING",
        "KEY_RING_DESTROYED",
        "KEY_RING_NOT_RUNNING",
        "AGENT_UNREACHABLE",
        "AGENT_TIMEOUT",
        "OUTCOME_UNKNOWN",
        "FOREIGN_AGENT",
        "VERSIONS_DIFFER",
        "PROTOCOL",
        "CLIENT_CLOSED",
        "TOKEN_FILE",
        "TOKEN_FILE_BUSY",
        "ORIGIN_NOT_ALLOWED",
        "START",
        "ALREADY_SERVING",
        "SOCKET_PATH",
        "ENVIRONMENT",
        "STATE_FOLDER",
        "CONFIG",
    }
