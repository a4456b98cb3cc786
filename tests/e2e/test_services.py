"""The embedded servers: they answer, and whatever ends their owner, nothing stays behind."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis

from interest.errors import ServiceUnavailable
from interest_cli import owner
from interest_cli.owner import RunningServices
from interest_cli.services import (
    EmbeddedServices,
    services_down,
    services_status,
    services_up,
)

ROOT = Path(__file__).resolve().parents[2]
#: Runs the services, says where, and waits for its end; argv[1] is what it does meanwhile.
OWNER = """
import signal, sys, time, msgspec
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores them
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from interest_cli.services import EmbeddedServices
with EmbeddedServices() as services:
    print(msgspec.json.encode(services.running).decode(), flush=True)
    exec(sys.argv[1])
"""
WAIT = "time.sleep(600)"


def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def nothing_left(services: RunningServices) -> bool:
    pids = (services.keeper_pid, services.kafka.pid, services.redis.pid)
    return not any(map(runs, pids)) and not Path(services.folder).exists()


def script(program: Path, text: str) -> str:
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return str(program)


def owned_by(process: subprocess.Popen[bytes]) -> RunningServices:
    assert process.stdout is not None
    return msgspec.json.decode(process.stdout.readline(), type=RunningServices)


@contextmanager
def an_owner(meanwhile: str = WAIT) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-c", OWNER, meanwhile]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of its own, so that a test can see that it stays empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    services_down(folder)


async def round_trip(bootstrap: str) -> tuple[bytes | None, bytes | None]:
    """Send one record to the broker and read it back."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer("t", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with producer, consumer:
        await producer.send_and_wait("t", b"value", b"key")
        record = await asyncio.wait_for(consumer.getone(), 15)
    return record.key, record.value


def test_both_servers_answer_and_nothing_is_left_after_the_block(temporary: Path) -> None:
    with EmbeddedServices() as services:
        running = services.running
        assert Path(running.folder).stat().st_mode & 0o777 == 0o700
        with Redis.from_url(services.redis_url) as redis:
            redis.set("a", "b")
            assert redis.get("a") == b"b"
            assert redis.config_get("save") == {"save": ""}
        assert asyncio.run(round_trip(services.kafka_bootstrap)) == (b"key", b"value")
    assert nothing_left(running)
    assert not list(temporary.iterdir())


def test_nothing_is_left_after_an_exception(temporary: Path) -> None:
    services = EmbeddedServices()

    def fail() -> RunningServices:
        with services:
            seen.append(services.running)
            raise KeyError

    seen: list[RunningServices] = []
    with pytest.raises(KeyError):
        fail()
    assert nothing_left(seen[0])
    with pytest.raises(RuntimeError, match="inside the with block"):
        _ = services.redis_url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_when_a_signal_ends_the_owner(
    number: signal.Signals, temporary: Path
) -> None:
    with an_owner() as process:
        services = owned_by(process)
        process.send_signal(number)
        process.wait(15)
        until(lambda: nothing_left(services), "the servers and their folder are gone")
    assert not list(temporary.iterdir())


def test_nothing_is_left_when_the_owner_leaves_without_clean_up(temporary: Path) -> None:
    with an_owner("import os; os._exit(1)") as process:
        services = owned_by(process)
        until(lambda: nothing_left(services), "the servers and their folder are gone")


def test_a_fork_of_a_dead_owner_does_not_keep_the_servers(temporary: Path) -> None:
    fork = "import os; pid = os.fork(); print(pid, flush=True) if pid else None; " + WAIT
    with an_owner(fork) as process:
        services = owned_by(process)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        try:
            until(lambda: nothing_left(services), "the servers and their folder are gone")
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_owner_killed_while_the_servers_start_leaves_nothing(
    temporary: Path, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    slow = script(
        tmp_path / "redis-server", f"echo $$ > {note}.new; mv {note}.new {note}; sleep 600"
    )
    patch = f"from interest_cli import owner; owner.redis_program = lambda: {slow!r}\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-P", "-c", patch + OWNER], env=environment)
    until(note.exists, "the slow server was started")
    process.kill()
    process.wait()
    until(lambda: not runs(int(note.read_text())), "the slow server is gone")
    until(lambda: not list(temporary.iterdir()), "the folder is gone")


def test_the_servers_do_not_outlive_a_killed_keeper(temporary: Path) -> None:
    with EmbeddedServices() as services:
        running = services.running
        os.kill(running.keeper_pid, signal.SIGKILL)
    until(lambda: nothing_left(running), "the servers and their folder are gone")


def test_a_terminals_ctrl_c_does_not_reach_the_servers() -> None:
    with EmbeddedServices() as services:
        for server in (services.running.kafka, services.running.redis):
            assert os.getsid(server.pid) != os.getsid(0)


def test_a_missing_program_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServiceUnavailable, match=r"interest-updater\[embedded\].*redis") as error:
        owner.redis_program()
    assert "\n" not in str(error.value)
    with pytest.raises(ServiceUnavailable, match=r"broker.*interest-updater\[embedded\]"):
        EmbeddedServices().__enter__()


def test_a_program_on_path_is_used_where_there_is_no_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = script(tmp_path / "redis-server", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert owner.redis_program() == program


@pytest.mark.parametrize("server", ["kafka", "redis"])
def test_a_port_in_use_is_one_line_that_says_which_and_what_to_do(
    server: str, temporary: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        services = (
            EmbeddedServices(kafka_port=port)
            if server == "kafka"
            else EmbeddedServices(redis_port=port)
        )
        with pytest.raises(ServiceUnavailable) as error, services:
            pass
    assert f"port {port} for {server} is in use" in str(error.value)
    assert f"--{server}-port" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(temporary.iterdir())


def test_a_port_taken_between_choice_and_use_is_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    once = tmp_path / "once"
    refused = f"[ -e {once} ] || {{ touch {once}; echo 'bind: Address already in use'; exit 1; }}"
    program = script(tmp_path / "redis-server", f'{refused}\nexec {owner.redis_program()} "$@"')
    monkeypatch.setattr(owner, "redis_program", lambda: program)
    with EmbeddedServices() as services, Redis.from_url(services.redis_url) as redis:
        assert once.exists()
        assert redis.ping()


def test_a_server_that_ends_at_once_is_reported_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    program = script(tmp_path / "redis-server", "echo starting; echo no luck today >&2; exit 7")
    monkeypatch.setattr(owner, "redis_program", lambda: program)
    with pytest.raises(ServiceUnavailable) as error, EmbeddedServices():
        pass
    assert "redis did not start: it ended with exit code 7" in str(error.value)
    assert "starting | no luck today" in str(error.value)
    assert not list(temporary.iterdir())


def test_a_server_that_never_answers_is_reported_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    program = script(tmp_path / "tansu", "echo thinking; sleep 600")
    monkeypatch.setattr(owner, "broker_program", lambda: program)
    expected = r"kafka did not start: it did not answer within 0\.5 s.*thinking"
    with pytest.raises(ServiceUnavailable, match=expected), EmbeddedServices(ready_s=0.5):
        pass
    assert not list(temporary.iterdir())


def test_up_status_and_down_can_each_be_repeated(state: Path) -> None:
    assert services_status(state).services is None
    first = services_up(state)
    assert first.changed
    assert first.services is not None
    again = services_up(state)
    assert not again.changed
    assert again.services == first.services == services_status(state).services
    with Redis.from_url(first.services.redis_url) as redis:
        assert redis.ping()
    assert services_down(state).changed
    assert nothing_left(first.services)
    assert not state.exists()
    assert not services_down(state).changed
    assert services_status(state).services is None


def test_two_commands_at_once_start_the_services_once(state: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(services_up, [state] * 3))
    assert sorted(report.changed for report in reports) == [False, False, True]
    assert len({msgspec.json.encode(report.services) for report in reports}) == 1


def test_services_for_development_outlive_the_command_that_started_them(state: Path) -> None:
    up = "from pathlib import Path; from interest_cli.services import services_up; "
    command = [sys.executable, "-P", "-c", up + f"services_up(Path({str(state)!r}))"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60)
    services = services_status(state).services
    assert services is not None
    assert services.alive
    with Redis.from_url(services.redis_url) as redis:
        assert redis.ping()


def test_a_dead_server_shows_in_the_status_and_up_does_not_hide_it(state: Path) -> None:
    services = services_up(state).services
    assert services is not None
    os.kill(services.redis.pid, signal.SIGKILL)

    def noticed() -> bool:
        now = services_status(state).services
        return now is not None and not now.redis.alive and now.kafka.alive

    until(noticed, "the status shows the death")
    with pytest.raises(ServiceUnavailable, match=r"redis of .* has died"):
        services_up(state)
    assert services_down(state).changed
    assert nothing_left(services)


def test_the_state_of_a_killed_keeper_is_cleaned(state: Path) -> None:
    first = services_up(state).services
    assert first is not None
    os.kill(first.keeper_pid, signal.SIGKILL)
    until(lambda: services_status(state).services is None, "the keeper is gone")
    second = services_up(state)
    assert second.changed
    assert second.services is not None
    assert not runs(first.kafka.pid)
    assert not runs(first.redis.pid)


def test_a_process_that_got_the_pid_of_a_server_is_left_alone(state: Path) -> None:
    services = services_up(state).services
    assert services is not None
    os.kill(services.keeper_pid, signal.SIGKILL)
    until(lambda: services_status(state).services is None, "the keeper is gone")
    with subprocess.Popen([sys.executable, "-c", WAIT.join(["import time; ", ""])]) as stranger:
        reused = msgspec.structs.replace(services.redis, pid=stranger.pid)
        stale = msgspec.structs.replace(services, redis=reused)
        (Path(services.folder) / "state.json").write_bytes(msgspec.json.encode(stale))
        assert services_down(state).changed
        assert stranger.poll() is None
        stranger.kill()


def test_files_of_somebody_else_are_not_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "services" / "precious"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(ServiceUnavailable, match="not ours"):
        services_up(tmp_path)
    assert not services_down(tmp_path).changed
    assert theirs.exists()


def test_a_state_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceUnavailable, match="cannot start the services"):
        services_up(tmp_path / "file" / "state")


def command(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``interest services …`` as a person does."""
    program = [sys.executable, "-P", "-m", "interest_cli.main", "services", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*program, "--state", str(state)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_commands_start_show_and_stop_them_however_often_they_are_given(state: Path) -> None:
    ports = ("--kafka-port", "0", "--redis-port", "0")
    first, again = command(state, "up", *ports), command(state, "up", *ports)
    services = services_status(state).services
    assert services is not None
    exports = (
        f"export INTEREST_KAFKA_BOOTSTRAP={services.kafka_bootstrap}\n"
        f"export INTEREST_REDIS_URL={services.redis_url}\n"
    )
    assert first.stdout.startswith("started; in memory only")
    assert again.stdout.startswith("running already; in memory only")
    for shown in (first, again):
        assert shown.returncode == 0
        assert shown.stdout.endswith(exports)
        assert shown.stderr == ""
    assert command(state, "env").stdout == exports
    status = command(state, "status")
    assert status.returncode == 0
    assert services.kafka_bootstrap in status.stdout
    assert services.redis_url in status.stdout
    downs = [command(state, "down") for _ in range(2)]
    assert [down.returncode for down in downs] == [0, 0]
    assert [down.stdout for down in downs] == ["stopped; what they held is gone\n", "not running\n"]
    assert nothing_left(services)


def test_a_script_sees_by_the_exit_code_that_they_do_not_run(state: Path) -> None:
    status, env = command(state, "status"), command(state, "env")
    assert (status.returncode, env.returncode) == (3, 3)
    assert env.stdout == ""  # a shell executes it
    assert env.stderr.startswith("error: no services run here")


def test_the_status_command_names_the_server_that_died_and_its_log(state: Path) -> None:
    services = services_up(state).services
    assert services is not None
    os.kill(services.redis.pid, signal.SIGKILL)
    until(lambda: command(state, "status").returncode == 3, "the status shows the death")
    shown = command(state, "status").stdout
    assert f"{services.redis_url}  died, see {services.redis.log}" in shown
    assert f"{services.kafka_bootstrap}\n" in shown


def test_the_up_command_says_in_one_line_that_a_port_is_in_use(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        up = command(state, "up", "--kafka-port", port, "--redis-port", "0")
    assert up.returncode == 3
    assert up.stdout == ""
    assert up.stderr.startswith(f"error: port {port} for kafka is in use")
    assert len(up.stderr.splitlines()) == 1
    assert not state.exists()
