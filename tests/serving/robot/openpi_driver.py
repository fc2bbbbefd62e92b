"""The published `openpi-client` as a filter, run by an interpreter of its own: `openpi_driver.py URL OPEN_LOOP [KEY]`.

Reads observations from standard input and writes what the client returns for each to standard output, both as npz
archives behind their length. OPEN_LOOP above 0 takes so many actions of each chunk, one at a time, with openpi's own
`ActionChunkBroker`.
"""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main(url: str, open_loop: int, key: str | None = None) -> None:
    policy = WebsocketClientPolicy(url, api_key=key)
    asked = ActionChunkBroker(policy, open_loop) if open_loop else policy
    print(f"numpy {np.__version__}, server's horizon {policy.get_server_metadata()['horizon']}", file=sys.stderr)
    while head := sys.stdin.buffer.read(4):
        archive = io.BytesIO(sys.stdin.buffer.read(struct.unpack("!I", head)[0]))
        with np.load(archive, allow_pickle=False) as fields:
            observation = {name: value.item() if value.dtype.kind == "U" else value for name, value in fields.items()}
        try:
            told = {"actions": asked.infer(observation)["actions"]}
        except RuntimeError as error:
            told = {"error": np.array(str(error))}
        packed = io.BytesIO()
        np.savez(packed, **told)
        sys.stdout.buffer.write(struct.pack("!I", packed.tell()) + packed.getvalue())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
