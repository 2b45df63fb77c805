"""Ask the process in this container whether it is well: exit code 0 if so.

The server answers at the metrics endpoints that its run directory names. A worker is well while its process lives and
is not a zombie; the server itself watches its heartbeats and gives up a worker that is stuck.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path


def server_answers() -> bool:
    targets = json.loads((Path("/runs") / os.environ["STUDY"] / "targets.json").read_text())
    for target in (target for group in targets for target in group["targets"]):
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=3) as answer:
            if b"penstock_" not in answer.read():
                return False
    return True


def worker_lives() -> bool:
    return any(folder.name.isdecimal() and b"penstock\x00worker" in (folder / "cmdline").read_bytes() for folder in Path("/proc").iterdir())


if __name__ == "__main__":
    try:
        well = server_answers() if sys.argv[1] == "server" else worker_lives()
    except (OSError, ValueError, KeyError) as error:
        print(error)
        well = False
    sys.exit(0 if well else 1)
