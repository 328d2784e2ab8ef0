"""A builder that builds nothing: its trees are the package itself. `MODE` says how it ends.

Each run leaves a line in the file `BUILDS`, when that is given, so that tests can count them.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

job = json.loads(sys.stdin.readline())
env = job["env"]
if env.get("BUILDS"):
    with Path(env["BUILDS"]).open("a") as builds:
        builds.write(json.dumps(job) + "\n")


def out(**line: object) -> None:
    print(json.dumps(line), flush=True)


out(step={"name": "unpack", "state": "start", "text": "Unpacking", "seconds": 0.0})
out(step={"name": "unpack", "state": "done", "text": "Unpacked", "seconds": 0.1})
mode = env.get("MODE", "")
if mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "silent":
    sys.exit(7)
elif mode == "babble":
    print("not json", flush=True)
elif mode == "fail":
    details = {"traceback": "Traceback (most recent call last):\n  boom"}
    error = {"code": "app_syntax_error", "message": "no", "hint": "", "whose": "app"}
    out(error=error | {"details": details})
    sys.exit(1)
elif mode == "hold":  # until somebody kills us
    signal.pause()
elif mode == "gate":  # until the test opens the named pipe
    Path(env["GATE"]).read_bytes()
if job["only_snapshot"]:
    spec = job["only_snapshot"]["spec"]
    out(
        result={
            "name": spec["name"],
            "spec": spec,
            "build": job["only_snapshot"]["build"],
            "snapshot": json.loads(Path(env["AGAIN"]).read_text()),
        }
    )
    sys.exit()
out(
    result={
        "name": job["app_name"] or job["folder_name"],
        "spec": {
            "name": job["app_name"] or job["folder_name"],
            "runtime": "python",
            "entrypoint": "app:app",
            "env": env,
            "scaling": {},
            "limits": {},
            "health": {},
            "jobs": json.loads(env.get("JOBS", "[]")),
            "post_deploy": json.loads(env.get("POST_DEPLOY", "[]")),
            "volumes": json.loads(env.get("VOLUMES", "[]")),
            "isolation": json.loads(env.get("ISOLATION", "{}")),
        },
        "build": {
            "key": hashlib.sha256(job["package"].encode()).hexdigest(),
            "app_tree": job["package"],
            "site_tree": job["package"],
            "dependencies": [["flask", "3.1.0"]],
        },
        "snapshot": json.loads(env.get("SNAPSHOT", "null")),
    }
)
