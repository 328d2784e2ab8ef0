"""The real worker. See strict_node."""

import signal
import time

from isopod.server import worker_process


def stand_still(*_: object) -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, stand_still)
    worker_process.main(kill_unlisted=True)
