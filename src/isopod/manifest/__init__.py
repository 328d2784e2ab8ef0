"""isopod.toml: what a folder says of its app. Everything in it is optional.

[app] name, runtime, entrypoint, debug; [scaling] max_instances, idle_s, queue; [limits] memory_mib,
deadline_ms, cpu_ms_per_request, max_instances, max_request_mib, max_response_mib, log_kib_per_s,
disk_mib; [health] path; [startup] snapshot, warmup, before_snapshot, after_restore; [isolation]
mode, cordon; [network] allow; [static] root, spa, "/path" = "folder"; [env] KEY = "value";
[[volumes]] name, mount; [[jobs]] name, schedule, path, command, timeout_s, retries; [deploy]
post_deploy; [websocket] hibernate.
"""

from isopod.manifest.content import Manifest
from isopod.manifest.reader import FILE_NAME, load, parse

__all__ = ["FILE_NAME", "Manifest", "load", "parse"]
