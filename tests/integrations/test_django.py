from __future__ import annotations

import asyncio
import getpass

import django
import httpx
import pytest
from django.conf import settings
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.http import HttpResponse, JsonResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from agentd_client.ext.guard import Denied

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

MIDDLEWARE = "agentd_client.ext.django.SessionTokenMiddleware"
BACKEND = "agentd_client.ext.django.SessionTokenBackend"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "set by a fixture"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=[MIDDLEWARE],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["agentd_client.ext.rest_framework.SessionTokenAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY="only of these tests",
)
django.setup()

# These need the settings.
from django.contrib.auth import authenticate, get_user_model  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from rest_framework.decorators import api_view  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from agentd_client.ext.django import SessionTokenMiddleware  # noqa: E402


def notes(request):
    return HttpResponse(request.agentd_session.label if hasattr(request, "agentd_session") else "exempt")


async def notes_async(request):
    return HttpResponse(request.agentd_session.label)


def user(request):
    found = request.user
    return JsonResponse(
        [str(found), found.get_username(), found.is_authenticated, found.is_staff], safe=False
    )


async def user_async(request):
    found = await request.auser()
    return JsonResponse(
        [str(found), await found.ahas_perm("write"), await found.ahas_perms(["read"])], safe=False
    )


@permission_required("write", raise_exception=True)
def write(request):
    return HttpResponse("written")


def form(request):
    return HttpResponse(get_token(request))


def log_in(request):
    return HttpResponse(str(authenticate(request, session_token=request.GET["given"])))


@api_view(["GET", "POST"])
def api(request):
    return Response([request.auth.label, str(request.user)])


urlpatterns = [
    path("", notes),
    path("async", notes_async),
    path("health", notes),
    path("user", user),
    path("user/async", user_async),
    path("write", write),
    path("form", form),
    path("log-in", log_in),
    path("api", api),
]


@pytest.fixture(autouse=True)
def project(agent):
    """The project, with its guard made anew: each test has an agent of its own."""
    with override_settings(AGENTD={}):
        yield


@pytest.fixture(scope="module")
def accounts(tmp_path_factory):
    connections.settings["default"]["NAME"] = str(tmp_path_factory.mktemp("django") / "db.sqlite3")
    call_command("migrate", verbosity=0)
    model = get_user_model()
    model.objects.create_user(getpass.getuser())
    model.objects.create_user("nobody-now", is_active=False)
    yield model
    connections.close_all()


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def status(url: str):
    return lambda token: httpx.get(url, headers=bearer(token)).status_code


@pytest.mark.parametrize("cache", [False, True], ids=["asked each time", "cached"])
def test_it_answers_as_every_guarded_server_does(agent, cache):
    options = {"scopes": [SCOPE], "audience": AUDIENCE, "cache": cache}
    with override_settings(AGENTD=options), serving.wsgi(WSGIHandler()) as url:
        assert statuses(agent, status(url), is_cached=cache) == EXPECTED


@pytest.mark.parametrize("view", ["async", ""])
def test_it_answers_so_under_asgi(agent, view):
    options = {"scopes": [SCOPE], "audience": AUDIENCE}
    with override_settings(AGENTD=options), serving.asgi(ASGIHandler()) as url:
        assert statuses(agent, status(f"{url}/{view}")) == EXPECTED


def test_rest_framework_answers_so(agent):
    options = {"scopes": [SCOPE], "audience": AUDIENCE}
    with override_settings(AGENTD=options, MIDDLEWARE=[]), serving.wsgi(WSGIHandler()) as url:
        assert statuses(agent, status(f"{url}/api")) == EXPECTED


def test_rest_framework_sends_the_headers_of_rfc_6750(agent):
    options = {"scopes": ["read"], "realm": "notes"}
    with override_settings(AGENTD=options, MIDDLEWARE=[]), serving.wsgi(WSGIHandler()) as url:
        unauthenticated = httpx.get(f"{url}/api")
        refused = httpx.get(f"{url}/api", headers=bearer(agent.create_token(scopes=[]).token))
        agent.lock()
        unavailable = httpx.get(f"{url}/api", headers=bearer("v4.local.nothing"))
    assert unauthenticated.headers["WWW-Authenticate"] == 'Bearer realm="notes"'
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    assert 'scope="read"' in refused.headers["WWW-Authenticate"]
    assert unavailable.headers["Retry-After"] == "10"


def test_views_find_the_session_and_what_is_exempt_needs_none(agent):
    token = agent.create_token(label="desk").token
    with override_settings(AGENTD={"exempt": ["/health"]}), serving.wsgi(WSGIHandler()) as url:
        assert httpx.get(url, headers=bearer(token)).text == "desk"
        assert httpx.get(f"{url}/health").text == "exempt"
        assert httpx.get(f"{url}/nothing").status_code == 401, "nobody learns which paths there are"


@pytest.mark.parametrize(("root", "path"), [("/health", ""), ("/he", "alth"), ("/health", "/")])
def test_a_root_that_the_request_chose_makes_nothing_exempt(root, path):
    # gunicorn takes SCRIPT_NAME from a header of requests from this machine, and Django routes by the rest.
    answers: list[str] = []
    environ = RequestFactory()._base_environ(SCRIPT_NAME=root, PATH_INFO=path)
    with override_settings(AGENTD={"exempt": ["/health", "/health/"]}):
        WSGIHandler()(environ, lambda status, headers: answers.append(status))
    assert answers == ["401 Unauthorized"]


def test_without_the_backend_the_user_is_the_session_and_scopes_are_permissions(agent):
    reader = agent.create_token(label="desk", scopes=["read"]).token
    unlimited = agent.create_token().token
    with serving.wsgi(WSGIHandler()) as url:
        assert httpx.get(f"{url}/user", headers=bearer(reader)).json() == ["desk", "desk", True, False]
        assert httpx.get(f"{url}/write", headers=bearer(reader)).status_code == 403
        assert httpx.get(f"{url}/write", headers=bearer(unlimited)).text == "written"
        assert httpx.get(f"{url}/api", headers=bearer(reader)).json() == ["desk", "desk"]
    with serving.asgi(ASGIHandler()) as url:
        assert httpx.get(f"{url}/user/async", headers=bearer(reader)).json() == ["desk", False, True]


@pytest.mark.parametrize(
    ("username", "shown", "is_authenticated"),
    [(None, getpass.getuser(), True), ("nobody-now", "AnonymousUser", False), ("x", "AnonymousUser", False)],
    ids=["the agent's user", "inactive", "unknown"],
)
def test_with_the_backend_it_is_a_user_of_django(agent, accounts, username, shown, is_authenticated):
    token = agent.create_token(label="desk").token
    with (
        override_settings(AGENTD={"username": username}, AUTHENTICATION_BACKENDS=[BACKEND]),
        serving.wsgi(WSGIHandler()) as url,
    ):
        found = httpx.get(f"{url}/user", headers=bearer(token)).json()
        api = httpx.get(f"{url}/api", headers=bearer(token))
        logged_in = httpx.get(f"{url}/log-in", headers=bearer(token), params={"given": token}).text
    assert (found[0], found[2]) == (shown, is_authenticated)
    assert api.status_code == (200 if is_authenticated else 403)
    assert logged_in == (shown if is_authenticated else "None")


@override_settings(AUTHENTICATION_BACKENDS=[BACKEND])
def test_the_backend_refuses_what_is_not_a_valid_token(agent, accounts):
    (backend,) = django.contrib.auth.get_backends()
    for nonsense in ("v4.local.nothing", "", "two words", None, b"\xff", 3):
        assert authenticate(None, session_token=nonsense) is None
    assert asyncio.run(backend.aauthenticate(None, session_token="v4.local.nothing")) is None
    assert backend.get_user(1) is asyncio.run(backend.aget_user(1)) is None, "no login outlives the session"
    token = agent.create_token().token
    assert authenticate(None, session_token=token).get_username() == getpass.getuser()
    agent.lock()
    with pytest.raises(Denied) as caught:
        authenticate(None, session_token=token)
    assert caught.value.status == 503
    assert SessionTokenMiddleware(notes).process_exception(None, caught.value).status_code == 503
    assert SessionTokenMiddleware(notes).process_exception(None, ValueError()) is None


@pytest.mark.parametrize("view", ["form", "api"])
def test_only_tokens_in_cookies_need_protection_against_other_sites(agent, view):
    token = agent.create_token().token
    changed = {"AGENTD": {"cookie": "agentd", "query": "token"}, "MIDDLEWARE": [CSRF, MIDDLEWARE]}
    with override_settings(**changed), serving.wsgi(WSGIHandler()) as url:
        assert httpx.post(f"{url}/{view}", headers=bearer(token)).status_code == 200
        assert httpx.post(f"{url}/{view}", params={"token": token}).status_code == 200
        assert httpx.post(f"{url}/{view}", cookies={"agentd": token}).status_code == 403
        secret = httpx.get(f"{url}/form", cookies={"agentd": token})
        sent = {"agentd": token, "csrftoken": secret.cookies["csrftoken"]}
        header = {"X-CSRFToken": secret.text}
        assert httpx.post(f"{url}/{view}", cookies=sent, headers=header).status_code == 200


def test_two_headers_are_a_malformed_request(agent):
    headers = [("Authorization", f"Bearer {agent.create_token().token}")] * 2
    with serving.asgi(ASGIHandler()) as url:
        assert httpx.get(f"{url}/async", headers=headers).status_code == 400


@override_settings(AGENTD={"scope": ["read"]})
def test_a_misspelt_option_is_a_mistake_in_the_settings():
    with pytest.raises(ImproperlyConfigured, match="scope"):
        WSGIHandler()
