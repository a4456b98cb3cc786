"""A real Redis behind TLS and access rules: what works, and what each refusal says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interest.errors import BadInput, ServiceUnavailable
from interest.forgetting import Marker, subject_hash
from interest.tls import TlsFiles
from interest.vector import Token
from store.redis_vectors import RedisUserVectors
from tests.certificates import Certificates, make_certificates
from tests.contract.conftest import RedisServer, running_redis
from tests.contract.test_user_vector_store import MODEL, update
from tests.tls_front import tls_front

DOC = Path(__file__).resolve().parents[2] / "docs" / "security.md"
PASSWORD = "s3cret"


def documented_user(password: str = PASSWORD) -> list[str]:
    """Give the command of the documentation that makes the user of a worker."""
    [line] = re.findall(r"^ACL SETUSER .*$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    return [word.replace("PASSWORD", password) for word in line.split()]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that knows the user of the documentation alone."""
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        client: Any = running.client
        client.execute_command(*documented_user())
        client.acl_setuser("default", enabled=False)
        client.close()
        yield running


def socket_of(server: RedisServer) -> str:
    return server.url.removeprefix("unix://")


def files(certificates: Certificates, **changes: Path | str) -> TlsFiles:
    given = {"ca": certificates.ca, **changes}
    return TlsFiles("INTEREST_REDIS", **{name: str(path) for name, path in given.items()})


async def test_the_documented_rights_are_enough_for_everything(server: RedisServer) -> None:
    url = server.url.replace("unix://", f"unix://interest:{PASSWORD}@")
    store = RedisUserVectors(url)
    await store.ping()
    assert await store.upsert([update()]) == [None]
    [state] = await store.fetch(["u"], MODEL)
    assert state is not None
    await store.fetch_heads(["u"], MODEL)
    await store.publish_popular(0, {"a": 1.0})
    assert await store.fetch_popular(1)
    await store.live_model()
    await store.epoch()
    marker = Marker(subject_hash("", "u"), time_ms=1, token=Token(0, 2, 0))
    left = await store.forget("u", marker)
    await store.restore_markers([left])
    await store.close()


async def test_nothing_outside_its_keys_and_nothing_dangerous_is_allowed(
    server: RedisServer,
) -> None:
    url = server.url.replace("unix://", f"unix://interest:{PASSWORD}@")
    other = RedisUserVectors(url, prefix="other:")
    with pytest.raises(ServiceUnavailable, match=r"docs/security\.md says which rights") as caught:
        await other.fetch(["alice"], MODEL)
    assert "alice" not in str(caught.value)
    with pytest.raises(ServiceUnavailable):
        await other.upsert([update()])
    await other.close()


@pytest.mark.parametrize("mutual", [False, True])
async def test_vectors_go_through_tls(
    server: RedisServer, certificates: Certificates, mutual: bool
) -> None:
    client_ca = certificates.ca if mutual else None
    with tls_front(socket_of(server), certificates.server_both, client_ca) as port:
        tls = files(certificates)
        if mutual:
            tls = files(certificates, cert=certificates.client_cert, key=certificates.client_key)
        store = RedisUserVectors(f"rediss://interest:{PASSWORD}@localhost:{port}/0", tls=tls)
        await store.ping()
        assert await store.upsert([update("tls")]) == [None]
        [state] = await store.fetch(["tls"], MODEL)
        assert state is not None
        await store.close()


@pytest.mark.parametrize(
    ("front", "ca", "says"),
    [
        ("server_both", "stranger_ca", "its certificate is refused .*; see INTEREST_REDIS_CA_FILE"),
        ("server_both", "", "its certificate is refused"),
        ("elsewhere_both", "ca", "its certificate is refused .*mismatch"),
    ],
)
async def test_a_certificate_that_does_not_prove_the_host_is_refused(
    server: RedisServer, certificates: Certificates, front: str, ca: str, says: str
) -> None:
    with tls_front(socket_of(server), getattr(certificates, front)) as port:
        tls = files(certificates, ca=getattr(certificates, ca) if ca else "")
        store = RedisUserVectors(f"rediss://interest:{PASSWORD}@127.0.0.1:{port}/0", tls=tls)
        with pytest.raises(ServiceUnavailable, match=says) as caught:
            await store.ping()
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)
        await store.close()


async def test_a_missing_certificate_of_ours_is_named(
    server: RedisServer, certificates: Certificates
) -> None:
    with tls_front(socket_of(server), certificates.server_both, certificates.ca) as port:
        url = f"rediss://interest:{PASSWORD}@127.0.0.1:{port}/0"
        store = RedisUserVectors(url, tls=files(certificates))
        with pytest.raises(ServiceUnavailable, match="INTEREST_REDIS_CERT_FILE"):
            await store.ping()
        await store.close()


def test_files_without_tls_are_a_contradiction(certificates: Certificates) -> None:
    with pytest.raises(BadInput, match=r"INTEREST_REDIS_CA_FILE need.* a rediss:// address"):
        RedisUserVectors(f"redis://:{PASSWORD}@localhost:6379/0", tls=files(certificates))


def test_a_file_that_is_not_there_is_said_at_once(certificates: Certificates) -> None:
    with pytest.raises(BadInput, match="INTEREST_REDIS_CA_FILE /nowhere cannot be read"):
        RedisUserVectors("rediss://localhost:6379/0", tls=files(certificates, ca="/nowhere"))
