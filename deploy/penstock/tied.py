"""Run a module whose process dies with the one that started it: python -m penstock.tied PARENT MODULE [ARGUMENT ...]

PR_SET_PDEATHSIG (prctl(2)) makes the kernel send SIGKILL when the parent ends, however it ends. It is set here, in the child,
because running Python between fork and exec is not safe in a launcher that has threads.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to PARENT and become MODULE."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the kernel knew that we care
        sys.exit(1)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
