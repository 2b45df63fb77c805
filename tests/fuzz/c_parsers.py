"""Coverage-guided fuzzing of what libpenstock reads, under the address and undefined-behaviour sanitizers.

`python tests/fuzz/c_parsers.py [--inputs N]` builds clients/c with gcc, writes the seeds and runs; a finding ends it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from mutations import VECTORS, vector_messages

ROOT = Path(__file__).parents[2]
FLAGS = (
    "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize-coverage=trace-pc"
)
HEADER, PAYLOAD, CONNECT_FILE, STREAM = range(4)
PAYLOADS = (
    "WELCOME",
    "ASSIGN",
    "ACCEPT",
    "STREAMED",
    "ALIVE",
    "REFUSE",
)  # in the order of clients/c/tests/fuzz_messages.c
KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
CONNECT_FILES = (
    '{"study": "s\\u00e9\\ud835\\udf08\\n", "incarnation": 3, "control": "tcp://127.0.0.1:4711",\n '
    f'"server_public_key": "{KEY}", "client_public_key": "{KEY}", "client_secret_key": "{KEY}"}}\n',
    '{"study": "\\"\\\\\\/\\b\\f\\n\\r\\t", "incarnation": 4294967296}',
    '{"incarnation": 1e3, "colour": [1, {"a": null}], "study": "\\ud800"}',
)


def build(folder: Path) -> Path:
    """The fuzzer, built into `folder`."""
    subprocess.run(
        ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={folder}", f"CFLAGS={FLAGS}", folder / "fuzz"], check=True
    )
    return folder / "fuzz"


def write_seeds(folder: Path) -> None:
    """Valid and invalid messages of the shared vectors, alone and as a trainer rank would send them; connect.json."""
    seeds = [bytes([HEADER]) + header for header, _ in vector_messages()]
    seeds += [bytes([HEADER]) + bytes.fromhex(i["hex"]) for i in VECTORS["invalid_headers"]]
    payloads = [(m["header"]["kind"], m["payload_hex"]) for m in VECTORS["messages"] if "payload" in m]
    payloads += [(i["kind"], i["hex"]) for i in VECTORS["invalid_payloads"]]
    for kind, text in payloads:
        if kind in PAYLOADS:
            seeds.append(bytes([PAYLOAD + 4 * PAYLOADS.index(kind)]) + bytes.fromhex(text))
    seeds += [bytes([CONNECT_FILE]) + text.encode() for text in CONNECT_FILES]
    for header, payload in vector_messages():
        frames = bytes([len(header)]) + header + bytes([min(255, len(payload))]) + payload[:255]
        seeds.append(bytes([STREAM, 1]) + frames)
        seeds.append(bytes([STREAM, 1]) + frames + bytes([0]) + frames[: len(header) + 1])
    folder.mkdir(exist_ok=True)
    for i, seed in enumerate(seeds):
        (folder / f"{i:03}").write_bytes(seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        write_seeds(Path(folder) / "seeds")
        return subprocess.run([program, Path(folder) / "seeds", str(given.inputs)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
