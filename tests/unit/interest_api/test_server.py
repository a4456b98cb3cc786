"""The HTTP server inside a running loop."""

from __future__ import annotations

import signal
import socket

import httpx
import pytest

from interest.errors import BadInput, ServiceUnavailable
from interest_api.metrics import PrometheusMetrics
from interest_api.operations import create_worker_app
from interest_api.server import HttpServer


def server(metrics: PrometheusMetrics, host: str = "127.0.0.1", port: int = 0) -> HttpServer:
    return HttpServer(create_worker_app({}, metrics), host, port, setting="INTEREST_WORKER_PORT")


async def test_port_zero_takes_a_free_port_and_says_which(metrics: PrometheusMetrics) -> None:
    async with server(metrics) as running, httpx.AsyncClient(base_url=running.url) as client:
        assert running.port > 0
        assert (await client.get("/healthz")).json() == {"status": "ok"}
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient().get(f"{running.url}/healthz")


async def test_the_callers_signal_handlers_stay(metrics: PrometheusMetrics) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with server(metrics):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_stopping_twice_and_before_the_start_is_fine(metrics: PrometheusMetrics) -> None:
    never = server(metrics)
    await never.stop()
    running = server(metrics)
    await running.start()
    await running.stop()
    await running.stop()
    await running.wait()


async def test_a_port_in_use_gives_one_line_with_port_and_setting(
    metrics: PrometheusMetrics,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceUnavailable) as caught:
            await server(metrics, port=port).start()
    assert f"port {port} on 127.0.0.1 is in use" in str(caught.value)
    assert "INTEREST_WORKER_PORT" in str(caught.value)


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
async def test_a_host_that_is_not_this_machine_is_refused(
    metrics: PrometheusMetrics, host: str
) -> None:
    with pytest.raises(BadInput, match=f"cannot listen on {host}"):
        await server(metrics, host).start()


async def test_a_body_does_not_wait_for_the_headers_to_be_acknowledged(
    metrics: PrometheusMetrics,
) -> None:
    running = server(metrics)
    with running._listen() as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
