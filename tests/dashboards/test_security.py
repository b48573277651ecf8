"""Who may see the app, and what its pages may load: asked of the server itself, as browsers and attackers ask."""

import secrets

import pytest

from analysis.settings import StudySettings
from dashboards import app, live, security
from dashboards.security import Door, door
from gpt3core.errors import UsageError

TOKEN = "correct horse battery staple"
CALLBACK = "/_dash-update-component"
HERE = "http://127.0.0.1:8050"


def client(at):
    return app.build(live.Live(StudySettings(runs="nowhere")), at).server.test_client()


@pytest.fixture(scope="module")
def opened():
    return client(Door())


@pytest.fixture
def locked():
    return client(Door(host="0.0.0.0", token=TOKEN))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_other_machines_are_let_in_with_a_token_only(host):
    with pytest.raises(UsageError, match=rf"host={host}: other machines .* add token=TEXT .* ssh -L"):
        app.main([f"host={host}"])
    assert door(host, TOKEN) == Door(host=host, token=TOKEN)


@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_none(host):
    assert door(host, None).token is None


def test_a_token_that_can_be_guessed_is_refused(tmp_path):
    with pytest.raises(UsageError, match="token= has 6 characters: at least 16"):
        door("0.0.0.0", "secret")
    (tmp_path / "t").write_text(f"{TOKEN}\n")
    assert door(None, f"@{tmp_path / 't'}").token == TOKEN
    with pytest.raises(UsageError, match="no text can be read from"):
        door(None, f"@{tmp_path / 'none'}")


@pytest.mark.parametrize("called", ["127.0.0.1:8050", "localhost:8050", "localhost", "[::1]:8050", "192.0.2.7:9000"])
def test_the_server_answers_to_addresses_and_its_own_names(opened, called):
    assert opened.get("/", headers={"Host": called}).status_code == 200


@pytest.mark.parametrize(
    "called", ["evil.example", "evil.example:8050", "localhost.evil.example", "127.0.0.1.nip.io", "[", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(opened, called):
    for path in ("/", "/_dash-layout", "/export/x.csv"):
        answer = opened.get(path, headers={"Host": called})
        assert answer.status_code in (400, 403), path


def test_what_another_sites_page_sends_is_refused(opened):
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert opened.post(CALLBACK, json={}, base_url=HERE, headers=headers).status_code == 403, headers
    for headers in ({"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, {}):
        assert opened.post(CALLBACK, json={}, base_url=HERE, headers=headers).status_code != 403, headers


def test_pages_may_load_nothing_from_elsewhere_and_no_script_of_a_name(opened):
    policy = dict(part.strip().split(" ", 1) for part in opened.get("/").headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    assert not [word for words in policy.values() for word in words.split() if "://" in word or word == "*"]
    assert opened.get("/").headers["X-Frame-Options"] == "DENY"


def test_a_form_of_ours_is_sent_with_its_origin(locked):
    # Fetch, "append a request Origin header": under no-referrer a POST says null, which is refused
    assert locked.get("/", base_url=HERE).headers["Referrer-Policy"] == "same-origin"


def test_nothing_is_answered_before_the_token(locked):
    for path in (
        "/",
        "/laws?figure=isoflop",
        "/_dash-layout",
        "/_dash-dependencies",
        "/assets/figures.js",
        "/export/x.csv",
    ):
        answer = locked.get(path, base_url=HERE)
        assert answer.status_code == 401, path
        assert b"_dash-config" not in answer.data
    assert locked.post(CALLBACK, json={}, base_url=HERE).status_code == 401


def test_the_token_is_asked_for_once_and_the_browser_keeps_something_else(locked, monkeypatch):
    monkeypatch.setattr(security, "WRONG_SECONDS", 0.0)
    wrong = locked.post("/laws?figure=isoflop", data={"token": secrets.token_hex(16)}, base_url=HERE)
    assert wrong.status_code == 401
    assert b"not the token" in wrong.data
    right = locked.post("/laws?figure=isoflop", data={"token": TOKEN}, base_url=HERE, headers={"Origin": HERE})
    assert (right.status_code, right.headers["Location"]) == (303, f"{HERE}/laws?figure=isoflop")
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/", base_url=HERE).status_code == 200
    other = client(Door(host="0.0.0.0", token=TOKEN))
    other.set_cookie("isoflop-8050", cookie.split("=", 1)[1].split(";")[0], domain="127.0.0.1")
    assert other.get("/", base_url=HERE).status_code == 401, "the cookie ends with the process"


def test_guesses_hold_no_thread_and_bring_no_more_for_coming_at_once(locked, monkeypatch, capfd):
    now = 1000.0
    monkeypatch.setattr(security.time, "monotonic", lambda: now)
    monkeypatch.setattr(security.time, "sleep", lambda _: pytest.fail("a thread is held"))

    def guess(token, **given):
        return locked.post("/", data={"token": token}, base_url=HERE, **given).status_code

    for i in range(25):
        assert guess(f"a wrong token, number {i}") == 401
        assert guess(f"another wrong token, number {i}") == 429
        assert guess(TOKEN) == 429, "else whoever sends many at once would learn which is right"
        now += 1.01 * security.WRONG_SECONDS
    assert capfd.readouterr().err == "20 wrong tokens were given so far, the last from 127.0.0.1\n"
    assert guess("one more that is wrong") == 401
    assert guess(TOKEN, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}) == 303, "nobody else is shut out"
    assert locked.get("/", base_url=HERE).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Cookie": "isoflop-8050=\xff\xfe"}, {"Cookie": 'isoflop-8050="\\303"'}, {"Origin": "http://["}]
)
def test_no_header_opens_or_breaks_it(locked, headers):
    assert locked.post("/", data={"x": "y"}, base_url=HERE, headers=headers).status_code in (401, 403)
    assert locked.get(f"/?token={TOKEN}", base_url=HERE).status_code == 401, "an address is kept and passed on"


@pytest.mark.parametrize("path", ["//evil.example/a", "/%5cevil.example", "/a%0d%0ab"])
def test_whoever_shows_the_token_stays_here(locked, path):
    sent = locked.open(path, method="POST", data={"token": TOKEN}, base_url=HERE)
    assert sent.status_code == 303
    assert sent.headers["Location"].startswith(f"{HERE}/")


def test_what_is_shown_is_kept_by_no_cache(opened):
    for path in ("/", "/_dash-layout", "/export/x.csv", "/runs?run=x"):
        assert opened.get(path).headers["Cache-Control"] == "no-store", path
    assert opened.get("/assets/isoflop.css").headers["Cache-Control"] == "no-cache", "asked for again, by its tag"


def test_a_token_sent_by_another_site_is_not_even_read(locked):
    sent = locked.post("/", data={"token": TOKEN}, base_url=HERE, headers={"Origin": "https://evil.example"})
    assert sent.status_code == 403


@pytest.mark.parametrize("path", ["/export/../../etc/passwd", "/export/%2e%2e%2fetc%2fpasswd.csv", "/assets/../app.py"])
def test_no_path_of_an_address_is_opened(opened, path):
    answer = opened.get(path)
    assert b"root:" not in answer.data
    assert b"import" not in answer.data


def test_a_file_of_dash_that_there_is_not_is_not_found(opened):
    answer = opened.get("/_dash-component-suites/dash/..%2f..%2fetc/passwd")
    assert (answer.status_code, answer.data) == (404, b"no such file\n")


@pytest.mark.parametrize(("typed", "meant"), [("prot=8050", "port"), ("tokne=x", "token"), ("rnus=x", "runs")])
def test_a_mistyped_key_is_met_with_the_one_that_was_meant(typed, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        app.main([typed])
