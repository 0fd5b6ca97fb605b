"""Runs PostgreSQL under a supervisor that knows SIGTERM only, and as another user where need be.

    python -I -S fast_stop.py [--user UID:GID] -- postgres …

To PostgreSQL SIGTERM means to wait until the last client has gone; what a stopping wheel means is
SIGINT: end their sessions, write everything, stop. Standard library only, as `guard`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the command to its end; return its status, 128 plus the signal that ended it."""
    options, argv = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    if options:
        uid, gid = map(int, options[1].split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    process = subprocess.Popen(argv)

    def stop(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
