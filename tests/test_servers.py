"""Addresses of database servers are read, written without their passwords, and remembered once they were named."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.errors import ArgumentError
from autobackbone.servers import DRIVERS, Server, as_server, named_before, remember

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=9)
HOSTS = st.sampled_from([None, "db.example.org", "10.0.0.1", "::1", "/var/run/postgresql", "/tmp/A b"])
SERVERS = st.builds(
    Server,
    driver=st.sampled_from(["", *DRIVERS]),
    user=st.none() | TEXTS,
    host=HOSTS,
    port=st.none() | st.integers(1, 65535),
    database=TEXTS,
    options=st.dictionaries(st.sampled_from(["sslmode", "application_name", "options"]), TEXTS),
    secrets=st.just({}),
)


@given(SERVERS)
def test_what_is_noted_of_a_server_names_it_again(server):
    assert as_server(server.noted()) == server
    assert as_server(str(server)).place == server.place


@given(SERVERS, st.from_regex(r"[A-Z]{12,20}", fullmatch=True))
def test_no_password_is_printed(server, password):
    joint = "&" if "?" in server.noted() else "?"
    found = as_server(f"{server.noted()}{joint}password={password}&sslpassword={password}")
    assert found.secrets == {"password": password, "sslpassword": password}
    assert replace(found, secrets={}) == server
    for text in (str(found), found.noted(), repr(found), f"{found!r:>5}"):
        assert password not in text


def test_the_password_of_the_address_counts_before_that_of_an_option():
    assert as_server("postgresql://me:a%40b%2F@h/db?password=c").secrets == {"password": "a@b/"}
    assert as_server("postgres://me:@h/db").secrets == {"password": ""}


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (3, "a int came"),
        ("", "a text without postgresql:// came"),
        ("hunter2@db", "a text without postgresql:// came"),
        ("hunter2 is it://db", "a text without postgresql:// came"),
        ("mysql://me:hunter2@h/db", r"mysql://… came\. Without storage= the study is a SQLite file"),
        ("sqlite:///hunter2.db", r"sqlite://… came\. Without storage="),
        ("postgresql+asyncpg://me:hunter2@h/db", r"asyncpg://… came, and the drivers .* psycopg2 and psycopg"),
        ("postgresql://me:hunter2@h", "without the name of one database"),
        ("postgresql://me:hunter2@h/", "without the name of one database"),
        ("postgresql://me:hunter2@h/a/b", "without the name of one database"),
        ("postgresql://me:hunter2", "port is no number"),
        ("postgresql://me:hunter2@h:0/db", "port is no number"),
        ("postgresql://me:hunter2@h:65536/db", "port is no number"),
        (f"postgresql://me:hunter2@h:{'9' * 5000}/db", "port is no number"),
        ("postgresql://me:hunter2@h/db?port=x", "port is no number"),
        ("postgresql://me:hunter2/x@h/db", "port is no number"),
        ("postgresql://me:hunter2#x@h/db", "one with a # came"),
        ("postgresql://me:hunter2@[::1/db", "host cannot be read"),
        ("postgresql://me:hunter2 @h/db", "spaces or control characters"),
        ("postgresql://me:hunter2@h/db\n", "spaces or control characters"),
        ("postgresql://me:hunter2@h/db?hostaddr=10.0.0.1", "with the option hostaddr"),
        ("postgresql://me:hunter2@h/db?service=x", "with the option service"),
    ],
)
def test_what_names_no_server_is_refused_without_being_repeated(given, came):
    with pytest.raises(
        ArgumentError, match=rf"storage is the address of a PostgreSQL database, such as .*; .*{came}"
    ) as e:
        as_server(given)
    assert "hunter2" not in str(e.value)
    assert e.value.__cause__ is None


def test_servers_are_known_once_they_were_named(named_servers):
    one, other = "postgresql://me@db.example.org/optuna", "postgresql://me@db.example.org/other"
    assert named_before(as_server(one).place) is None
    assert remember(
        as_server("postgresql+psycopg://me:hunter2@db.example.org/optuna?sslmode=verify-full&sslpassword=hunter2")
    )
    # Another user's run names the same place: it is entered as this user does.
    found = named_before(as_server("postgresql://you@DB.example.org/optuna").place)
    assert (found.user, found.driver, found.options) == ("me", "psycopg", {"sslmode": "verify-full"})
    assert named_before(as_server(other).place) is None
    assert remember(as_server(other))
    assert remember(as_server("postgresql://we@db.example.org/optuna"))
    assert named_before(as_server(one).place).user == "we"
    (file,) = named_servers.rglob("*.*")
    assert json.loads(file.read_text()) == ["postgresql://we@db.example.org/optuna", other]


@pytest.mark.parametrize("content", ["", "{", "3", '[3, null, "nonsense", ["postgresql://h/db"]]', "[" * 99_999])
def test_a_list_that_cannot_be_read_names_nobody_and_is_written_anew(named_servers, content):
    server = as_server("postgresql://h/db")
    assert remember(server)
    (file,) = named_servers.rglob("*.*")
    file.write_text(content)
    assert named_before(server.place) is None
    assert remember(server)
    assert named_before(server.place) == server


def test_who_has_no_folder_for_it_is_told_so(named_servers):
    named_servers.write_text("a file in its place")
    assert not remember(as_server("postgresql://h/db"))
    assert named_before(as_server("postgresql://h/db").place) is None
