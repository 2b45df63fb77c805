"""Make the workers' keys of a study, once its server has written its address.

    python3 keys.py RUN FOLDER NUMBER STARTED

Each worker takes a file of FOLDER that no other worker uses (worker.sh). STARTED is a file that was written when this
life of the server began: a connect.json that is older has the address of an earlier life.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from penstock_client import PenstockError
from penstock_server.network import CONNECT_FILE, hand_out

AGAIN = 0.2  # seconds between two looks


def main() -> None:
    """Wait for the server, then make the files that are missing."""
    run, folder, number, started = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    connect = run / CONNECT_FILE
    while not (connect.exists() and connect.stat().st_mtime_ns > started.stat().st_mtime_ns):
        time.sleep(AGAIN)
    for name in (f"worker-{n}" for n in range(1, number + 1)):
        if not (folder / f"{name}.json").exists():
            hand_out(run, name, folder / f"{name}.json")


if __name__ == "__main__":
    try:
        main()
    except (PenstockError, OSError) as error:
        sys.exit(f"the keys of the workers cannot be made: {error}")
