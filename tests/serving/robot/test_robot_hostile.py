"""A thousand malformed messages and fifty broken connections: the server, a process of its own, serves on."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

import hostile
import msgpack
import numpy as np
import pytest
from servo_policy import picture

from gemvlm_client import Observation, RobotClient

pytest.importorskip("websockets", reason="needs gemvlm[serve]")


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc to see another process's memory")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0]) / 1024


def serves(url: str) -> bool:
    with RobotClient(url, deadline_s=20.0) as client:
        observation = Observation({"front": picture((1, 1))}, np.zeros(2), "go", time.monotonic())
        return client.infer(observation).actions[0, 0] > 0


async def send_all(url: str, messages: list[bytes | str], at_once: int = 8) -> list[str]:
    """What became of each message: the refusal's text, "answered", or how the connection ended."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    gate = asyncio.Semaphore(at_once)

    async def one(message: bytes | str) -> str:
        async with gate, connect(url, compression=None, ping_interval=None) as websocket:
            await websocket.recv()
            try:
                await websocket.send(message)
                reply = await asyncio.wait_for(websocket.recv(), 30)
                return reply if isinstance(reply, str) else "answered"
            except ConnectionClosed as closed:
                return f"closed: {closed}"

    return await asyncio.gather(*map(one, messages))


def test_a_thousand_malformed_messages(server_process: tuple[str, int]):
    url, pid = server_process
    asyncio.run(send_all(url, list(hostile.messages(100, seed=1))))  # what a server needs once
    before = memory_mib(pid)
    outcomes = asyncio.run(send_all(url, list(hostile.messages(1000, seed=0))))
    after = memory_mib(pid)
    assert serves(url)
    refused = [text for text in outcomes if text != "answered"]
    assert len(outcomes) == 1000 and len(refused) > 850, "the rest were mutations that mean something after all"
    assert all(text and "Traceback" not in text for text in refused)
    assert sum(text.startswith("closed") for text in refused) == 0, "each is told why"
    assert after - before < 20, f"memory grew by {after - before:.1f} MiB"


def test_fifty_connections_that_break(server_process: tuple[str, int]):
    """Before and in the handshake, after it, in the middle of a message, while the policy thinks; some by reset."""
    url, pid = server_process
    place = urlsplit(url)
    assert place.hostname and place.port
    hello = (
        f"GET / HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    body = msgpack.packb(hostile.good())
    frame = struct.pack("!BBH", 0x82, 0x80 | 126, len(body)) + bytes(4) + body
    steps = (b"", hello[:40], hello, hello + frame[:500], hello + frame)
    before = memory_mib(pid)
    for number in range(50):
        with socket.create_connection((place.hostname, place.port), timeout=10) as raw:
            raw.sendall(steps[number % 5])
            if number % 5 >= 2 and number % 2:
                raw.recv(64)
            if number % 3 == 0:  # not a farewell but a reset
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert serves(url)
    until = time.monotonic() + 10
    while "connected 0" not in (text := metrics(url)) and time.monotonic() < until:
        time.sleep(0.05)
    assert "gemvlm_robot_connected 0" in text, "every broken connection was noticed"
    assert memory_mib(pid) - before < 20


def test_connections_that_say_nothing_keep_nobody_out(server_process: tuple[str, int]):
    url = server_process[0]
    place = urlsplit(url)
    silent = [socket.create_connection((place.hostname, place.port), timeout=10) for _ in range(40)]
    try:
        assert serves(url)
    finally:
        for connection in silent:
            connection.close()


def metrics(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url.replace("ws://", "http://") + "/metrics", timeout=10) as response:
        return response.read().decode()


def test_a_message_larger_than_agreed_ends_its_connection_only(server_process: tuple[str, int]):
    outcomes = asyncio.run(send_all(server_process[0], [bytes(2**20 + 1)]))
    assert outcomes[0].startswith("closed") and "1009" in outcomes[0]
    assert serves(server_process[0])
