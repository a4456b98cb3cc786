"""What a person meets who secures an installation: refusals at the start, and no secret shown."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import interest, running
from tests.e2e.test_commands import NOWHERE, assert_one_line

ROOT = Path(__file__).resolve().parents[2]
KEY = "k" * 32
SECRETS = {
    "INTEREST_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "INTEREST_KAFKA_USER": "worker",
    "INTEREST_KAFKA_PASSWORD": "s3cret-kafka",
    "INTEREST_REDIS_URL": "redis://user:s3cret-redis@127.0.0.1:1/0",
    "INTEREST_QDRANT_URL": "https://user:s3cret-url@127.0.0.1:1",
    "INTEREST_QDRANT_API_KEY": "s3cret-qdrant",
    "INTEREST_API_KEYS": "me:read:s3cret-api-key-of-me",
    "INTEREST_KAFKA_BOOTSTRAP": "127.0.0.1:1",
}


def test_a_public_address_without_keys_does_not_start(tmp_path: Path) -> None:
    done = interest("serve", cwd=tmp_path, env={**NOWHERE, "INTEREST_API_HOST": "0.0.0.0"})
    assert_one_line(done, 2, "0.0.0.0", "INTEREST_API_KEYS", "INTEREST_API_OPEN=true")


def test_a_demo_on_a_public_address_does_not_start_either(tmp_path: Path) -> None:
    done = interest("demo", "--once", cwd=tmp_path, env={"INTEREST_API_HOST": "0.0.0.0"})
    assert_one_line(done, 2, "INTEREST_API_KEYS")


@pytest.mark.parametrize("guarded", ["keys", "front"])
def test_a_public_address_serves_with_keys_or_something_in_front(
    tmp_path: Path, guarded: str
) -> None:
    (tmp_path / "keys").write_text(f"# of the shop\nshop:read:{KEY}\n")
    env = {**NOWHERE, "INTEREST_API_HOST": "0.0.0.0", "INTEREST_API_PORT": "0"}
    if guarded == "keys":
        env["INTEREST_API_KEYS_FILE"] = str(tmp_path / "keys")
    else:
        env["INTEREST_API_OPEN"] = "true"
    with running("serve", cwd=tmp_path, env=env) as server:
        server.says("serving on")
        port = re.findall(r"serving on http://0\.0\.0\.0:(\d+)", server.output)[0]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/healthz").status_code == 200
            without = client.get("/v1/users/alice-of-the-path/vector").status_code
            headers = {"Authorization": f"Bearer {KEY}"}
            with_key = client.get("/v1/users/alice-of-the-path/vector", headers=headers).status_code
        server.stop(signal.SIGTERM)
        assert (without, with_key) == ((401, 503) if guarded == "keys" else (503, 503))
        assert KEY not in server.output
        assert "alice-of-the-path" not in server.output


@pytest.mark.parametrize("command", ["worker", "serve"])
def test_settings_that_contradict_each_other_stop_the_start(tmp_path: Path, command: str) -> None:
    done = interest(command, cwd=tmp_path, env={**NOWHERE, "INTEREST_KAFKA_USER": "x"})
    assert_one_line(done, 2, "INTEREST_KAFKA_USER", "INTEREST_KAFKA_SECURITY_PROTOCOL")
    assert "loading the model" not in done.stderr


def test_files_for_a_redis_without_tls_stop_the_start(tmp_path: Path) -> None:
    done = interest("vector", "u", cwd=tmp_path, env={**NOWHERE, "INTEREST_REDIS_CA_FILE": "x"})
    assert_one_line(done, 2, "INTEREST_REDIS_CA_FILE", "rediss://")


@pytest.mark.parametrize("args", [("doctor",), ("topics", "create"), ("vector", "u")])
def test_no_command_shows_a_secret(tmp_path: Path, args: tuple[str, ...]) -> None:
    env = {**SECRETS, "INTEREST_LOG_LEVEL": "debug"}
    done = interest(*args, cwd=tmp_path, env=env)
    assert done.returncode != 0
    assert done.stdout + done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_the_compose_file_opens_the_api_on_loopback_only() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert 'INTEREST_API_OPEN: "true"' in text
    published = re.findall(r'ports: \["([^"]+)"\]', text)
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
