"""`python -m isopod.server.volume_process`: copies one volume, in or out, and ends.

Started by control, which must not read what guests wrote. The job is on standard input; the result
or the error is one line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from isopod.errors import IsopodError, SandboxUnavailable
from isopod.sandbox.copier import shut_in
from isopod.volumes.copying import CopyJob, most_file_bytes, run
from isopod.volumes.lease import VolumeFolder


def main() -> int:
    asked = json.loads(sys.stdin.buffer.read())
    try:
        job = CopyJob.from_json(asked["job"])
        # Workers write there: were it a link by now, another's volume would be what is opened.
        folder = Path(f"/proc/self/fd/{VolumeFolder(job.folder).open()}")
        missing = shut_in(
            (folder, job.archive.parent, job.work), most_file_bytes=most_file_bytes(job)
        )
        if missing and asked["require_sandbox"]:
            raise SandboxUnavailable(f"the kernel lacks {', '.join(missing)}")
        answer = {"result": run(job)}
    except IsopodError as error:
        answer = {"error": error.to_wire()}
    except OSError as bad:
        failed = IsopodError(f"volume: {(bad.strerror or str(bad)).lower()}")
        answer = {"error": failed.to_wire()}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    status = main()
    os._exit(status)
