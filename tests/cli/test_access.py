"""Who may do what with ``archive`` and ``receive``, and how the client commands say who they are."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.cli.access import PasswordHash

from ..interop.conftest import Certificates, certificates
from .program import Result, run, serving, started
from .test_archive import LISTEN, archiving, patient, write
from .test_receive import CT, receiving, stop
from .test_store import Receiver

pytest.importorskip("sqlalchemy")

__all__ = ["certificates"]

#: The hash of "opensesame", at a low cost.
HASH = "scrypt$16$8$1$MDEyMzQ1Njc4OWFiY2RlZg==$rvDZSnC1EagufwKFbVwogcOMcgWmz8KLI2pC+zdrjCE="
USERS = f'[users]\nalice = "{HASH}"\n'

# Hashes.


def test_a_hash_knows_its_password_and_no_other() -> None:
    made = PasswordHash.make("geheim, höchst".encode())
    read = PasswordHash.parse(str(made))
    assert read == made
    assert read.matches("geheim, höchst".encode())
    assert not read.matches(b"geheim")
    assert str(PasswordHash.make(b"x")) != str(PasswordHash.make(b"x"))


def test_a_hash_of_known_parameters_is_read() -> None:
    assert PasswordHash.parse(HASH).matches(b"opensesame")


def test_a_hash_does_not_show_itself() -> None:
    assert repr(PasswordHash.parse(HASH)) == "PasswordHash(cost=(16, 8, 1))"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "opensesame",
        "scrypt$16$8$1$MDEy",
        HASH.replace("scrypt", "md5"),
        HASH.replace("$16$", "$15$"),
        HASH.replace("$16$", "$-16$"),
        HASH.replace("$16$", "$1073741824$"),
        HASH.replace("$8$", "$1000000$"),
        HASH.replace("$1$", "$100000000$"),
        HASH.replace("MDEy", "!!!!"),
        HASH[:60],
    ],
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a hash"):
        PasswordHash.parse(text)


def test_the_password_command_hashes_the_first_line_of_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("opensesame\r\nsecond line\n")
    out = run("password", "--password-file", secret).check().out
    assert out.endswith("\n")
    assert PasswordHash.parse(out.strip()).matches(b"opensesame")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "an empty password is none"), (b"\xff\xfe\n", "not UTF-8"), (None, "no such file or directory")],
)
def test_a_file_without_a_password_is_wrong_usage(tmp_path: Path, content: bytes | None, expected: str) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    result = run("password", "--password-file", secret)
    assert result.status == 2
    assert expected in result.error


def test_without_a_terminal_there_is_nobody_to_ask_for_a_password() -> None:
    result = run("password")
    assert (result.status, result.out) == (2, "")
    assert "--password-file" in result.error


@pytest.mark.parametrize(("again", "status"), [("opensesame", 0), ("opensesam", 2)])
def test_on_a_terminal_the_password_is_asked_for_twice_and_never_shown(again: str, status: int) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncdicom", "password"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    for prompt, answer in ((b"password: ", "opensesame"), (b"again: ", again)):
        while prompt not in shown:
            shown += os.read(master, 1000)
        os.write(master, f"{answer}\n".encode())
    out, _ = process.communicate(timeout=60)
    while status and b"same" not in shown:
        shown += os.read(master, 1000)
    os.close(master)
    assert process.returncode == status
    assert b"opensesame" not in shown
    assert bool(out) is (status == 0)


# Users.


@contextmanager
def guarded(folder: Path, text: str, *options: object) -> Iterator[str]:
    """Run an archive with a file of options; gives its address, and looks at what it said."""
    with archiving(folder / "archive", "--config", write(folder, text), *LISTEN, *options) as (address, process):
        yield address
        _, err = stop(process)
    assert process.returncode == 0
    assert "sesam" not in err
    assert "Traceback" not in err


def echo_as(address: str, *options: object, password: str | None = None) -> Result:
    """Run an echo with a password in the environment."""
    if password is not None:
        os.environ["ASYNCDICOM_PASSWORD"] = password
    try:
        return run("echo", address, *options)
    finally:
        os.environ.pop("ASYNCDICOM_PASSWORD", None)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_where_users_are_named_nobody_else_associates(tmp_path: Path, loop: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("opensesame\n")
    with guarded(tmp_path, USERS, "-v", "--loop", loop) as address:
        echo_as(address, "--user", "alice", password="opensesame").check()
        echo_as(address, "--user", "alice", "--password-file", secret).check()
        echo_as(address, "--user", "alice", "--password-file", secret, password="wrong").check()
        refused = [
            echo_as(address, "--user", "alice", password="opensesam"),
            echo_as(address, "--user", "bob", password="opensesame"),
            echo_as(address, "--user", "bob", password=""),
            echo_as(address, "--user", "alice"),
            echo_as(address),
        ]
    for result in refused:
        assert result.status == 3
        assert "result 1, source 2, reason 1" in result.error
        assert "sesam" not in result.error


def test_every_client_command_says_who_it_is(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("opensesame")
    receiver = Receiver()
    ours = ["--user", "alice", "--password-file", secret]
    with serving(receiver.services, "DEST") as (destination, _):
        with guarded(tmp_path, USERS, "--peer", destination) as address:
            keys = ["-k", f"PatientID={patient()}"]
            run("store", address, CT.path, *ours).check()
            assert len(run("find", address, *keys, *ours).check().out.splitlines()) == 2
            run("get", address, *keys, "-o", tmp_path / "got", *ours).check()
            run("move", address, *keys, "--to", "DEST", *ours).check()
    assert list(receiver.data) == [CT.sop_instance_uid]


def test_a_receiver_may_have_users_too(tmp_path: Path) -> None:
    config = write(tmp_path, USERS + '[access]\nCT1 = "store"\n')
    with receiving(tmp_path / "in", "--config", config) as (address, process):
        assert echo_as(address).status == 3
        echo_as(address, "--user", "alice", password="opensesame").check()
        os.environ["ASYNCDICOM_PASSWORD"] = "opensesame"
        try:
            denied = run("store", address, CT.path, "--user", "alice")
            run("store", address, CT.path, "--user", "alice", "--calling", "CT1").check()
        finally:
            del os.environ["ASYNCDICOM_PASSWORD"]
        stop(process)
    assert denied.status == 1
    assert "0x0124" in denied.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--password-file", "x"], "--password-file has the password of a --user"),
        (["--user", "a", "--password-file", "nowhere"], "cannot read nowhere: no such file or directory"),
        (["--user", "a\x1b[2J"], "--user is not a printable name"),
    ],
)
def test_an_identity_that_cannot_be_is_wrong_usage(tmp_path: Path, options: list[str], expected: str) -> None:
    result = run("echo", "X@127.0.0.1:1", *options, cwd=tmp_path)
    assert (result.status, result.error) == (2, f"asyncdicom echo: {expected}")


# Rules and limits.

RULES = '[access]\nCT1 = ["store"]\nWS = ["query", "retrieve"]\nNOBODY = []\n'


@pytest.mark.parametrize(
    ("text", "calling", "allowed"),
    [
        (RULES, "CT1", {"store"}),
        (RULES, "WS", {"find", "get"}),
        (RULES, "NOBODY", set()),
        (RULES, "UNKNOWN", set()),
        (RULES + '"*" = ["query"]\n', "UNKNOWN", {"find"}),
        (RULES + '"*" = ["query"]\n', "NOBODY", set()),
        ("", "UNKNOWN", {"store", "find", "get"}),
    ],
)
def test_an_operation_that_is_not_allowed_is_answered_0124(
    tmp_path: Path, text: str, calling: str, allowed: set[str]
) -> None:
    keys = ["-k", f"PatientID={patient()}", "--level", "study"]
    with guarded(tmp_path, text) as address:
        who = [address, "--calling", calling]
        run("echo", *who).check()
        results = {
            "store": run("store", *who, CT.path),
            "find": run("find", *who, *keys),
            "get": run("get", *who, "-k", "StudyInstanceUID=1.2.3", "-o", tmp_path / "got"),
        }
    for name, result in results.items():
        assert (result.status, "0x0124" in result.err) == ((0, False) if name in allowed else (1, True)), (name, result)


def test_other_called_ae_titles_are_accepted_where_they_are_named(tmp_path: Path) -> None:
    with guarded(tmp_path, 'called = ["OLD", "OLDER"]\n') as address:
        place = address.partition("@")[2]
        for title, status in (("ARCHIVE", 0), ("OLD", 0), ("OLDER", 0), ("OTHER", 3)):
            assert run("echo", f"{title}@{place}").status == status, title


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["max-per-address = 1\n", "max-per-ae = 1\n"])
async def test_an_address_and_an_ae_title_have_so_many_associations_and_no_more(tmp_path: Path, text: str) -> None:
    with guarded(tmp_path, text) as address:
        async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as association:
            with pytest.raises(asyncdicom.AssociationRejected) as caught:
                await asyncdicom.connect(address, contexts=[sop.VERIFICATION]).__aenter__()
            await association.echo()
    assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)


PROFILES = "[profiles.OLD]\nmaximum-length = 4096\nasync-window = false\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "calling", "expected"),
    [
        (PROFILES, "OLD", (4096, (1, 1))),
        (PROFILES, "NEW", (131_072, (5, 5))),
        (PROFILES + '[profiles."*"]\nmaximum-length = 8192\n', "NEW", (8192, (5, 5))),
    ],
)
async def test_a_peer_is_treated_as_its_profile_says(
    tmp_path: Path, text: str, calling: str, expected: tuple[int, tuple[int, int]]
) -> None:
    options: dict[str, Any] = {"contexts": [sop.VERIFICATION], "calling": calling, "async_operations": (5, 5)}
    with guarded(tmp_path, text) as address:
        async with asyncdicom.connect(address, **options) as association:
            assert (association.negotiated.maximum_length, association.async_operations) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('users = "alice"', "'users' is not a table"),
        ('[users]\nalice = "opensesame"', "[users]: the user 'alice' has no hash of 'asyncdicom password'"),
        ("[users]\nalice = 3", "[users]: the user 'alice' has no hash of 'asyncdicom password'"),
        ('[access]\nCT1 = ["delete"]', "[access]: 'delete' of 'CT1' is not one of store, query, retrieve"),
        ("[access]\nCT1 = 1", "[access]: 1 of 'CT1' is not one of store, query, retrieve"),
        ('[access]\nA_TITLE_THAT_IS_TOO_LONG = ["store"]', "[access]: 'A_TITLE_THAT_IS_TOO_LONG' is not an AE title"),
        ("[profiles]\nCT1 = 1", "[profiles]: 'CT1' is not a table"),
        ("[profiles.CT1]\nasync_window = false", "[profiles]: 'async_window' of 'CT1' is not one of async-window, "),
        ("[profiles.CT1]\ncancel = 0", "[profiles]: 'cancel' of 'CT1' has another kind of value than bool"),
        ('[profiles.CT1]\noperations = "1"', "[profiles]: 'operations' of 'CT1' has another kind of value than int"),
        ("[profiles.CT1]\noperations = 0", "[profiles]: operations is 0: expected at least 1, or None"),
        ("[profiles.A_TITLE_THAT_IS_TOO_LONG]", "[profiles]: 'A_TITLE_THAT_IS_TOO_LONG' is not an AE title"),
        ("[acces]\nCT1 = 1", "'acces' is no option that has such a value"),
        ("max-per-ae = 0", "argument --max-per-ae: '0' is not a number of at least 1"),
    ],
)
def test_a_table_that_is_wrong_is_wrong_usage_and_shows_no_password(tmp_path: Path, text: str, expected: str) -> None:
    config = write(tmp_path, text)
    for command in ("archive", "receive"):
        result = run(command, tmp_path / "folder", "--config", config)
        assert result.status == 2
        assert f"archive.toml: {expected}" in result.error
        assert "opensesame" not in result.error
    assert not (tmp_path / "folder").exists()


# TLS towards C-MOVE destinations.


def test_destinations_are_sent_to_through_tls_where_they_take_it(tmp_path: Path, certificates: Certificates) -> None:
    secure, plain = Receiver(), Receiver()
    with (
        serving(secure.services, "SECURE", ssl=certificates.server) as (secure_address, _),
        serving(plain.services, "PLAIN") as (plain_address, _),
    ):
        text = (
            f'peer = ["{plain_address}"]\ntls-peer = ["{secure_address}"]\npeer-tls-ca = "{certificates.authority}"\n'
            f'peer-tls-cert = "{certificates.chain}"\npeer-tls-key = "{certificates.key}"\n'
        )
        with guarded(tmp_path, text) as address:
            run("store", address, CT.path).check()
            for title in ("SECURE", "PLAIN"):
                run("move", address, "-k", f"PatientID={patient()}", "--to", title).check()
    assert list(secure.data) == list(plain.data) == [CT.sop_instance_uid]


def test_a_destination_that_nobody_vouches_for_gets_nothing(tmp_path: Path, certificates: Certificates) -> None:
    receiver = Receiver()
    with serving(receiver.services, "SECURE", ssl=certificates.server) as (destination, _):
        with guarded(tmp_path, f'tls-peer = ["{destination}"]\n') as address:
            run("store", address, CT.path).check()
            result = run("move", address, "-k", f"PatientID={patient()}", "--to", "SECURE")
    assert result.status == 1
    assert "destination unreachable" in result.err
    assert not receiver.data


def test_unusable_files_for_tls_towards_destinations_are_wrong_usage(tmp_path: Path) -> None:
    result = run("archive", tmp_path / "archive", "--tls-peer", "X@127.0.0.1:1", "--peer-tls-key", "key.pem")
    assert (result.status, result.error) == (2, "asyncdicom archive: --peer-tls-key is the key of a --peer-tls-cert")


# What is negotiated for queries.


def test_a_query_may_be_relational_fuzzy_and_of_combined_dates_and_times(tmp_path: Path) -> None:
    with started("archive", tmp_path, *LISTEN) as process:
        assert process.stderr is not None
        address = process.stderr.readline().decode().split()[-1]
        run("store", address, CT.path).check()
        series = ["--level", "series", "-k", "Modality=CT", "-k", "SeriesInstanceUID"]
        assert run("find", address, *series).status == 1  # the study is not named
        assert len(run("find", address, *series, "--relational").check().out.splitlines()) == 2
        name = ["-k", "PatientName=COMPRESSED"]
        assert len(run("find", address, *name).check().out.splitlines()) == 0
        assert len(run("find", address, *name, "--fuzzy").check().out.splitlines()) == 2
        moment = ["-k", "StudyDate=20040118-20040119", "-k", "StudyTime=080000-073000"]
        assert len(run("find", address, *moment, "--combined-date-time").check().out.splitlines()) == 2
        stop(process)


@pytest.mark.parametrize("option", ["--relational", "--fuzzy", "--combined-date-time"])
def test_a_peer_that_does_not_do_what_a_query_needs_is_not_asked(address: str, option: str) -> None:
    result = run("find", address, "-k", "PatientID=1", option)
    assert (result.status, result.out) == (1, "")
    assert result.error == f"asyncdicom find: {address} does not support {option}"
