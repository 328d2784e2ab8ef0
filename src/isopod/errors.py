"""One tree of errors, from the guest's trap to the CLI's last line.

Every error carries a stable `code`, the HTTP `status` that answers it, whose fault it is
(`whose`: "caller", "app" or "node"), and a `hint` that says what to do next. Messages start in
lower case, quote values with `!r` and never hold a secret. The wire form (`to_wire`/`from_wire`)
is the API's error body, so the CLI raises the same class that the server raised.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

Whose = Literal["caller", "app", "node"]

# code -> class; every concrete error is here, so that a wire error finds its class again.
ERRORS: dict[str, type[IsopodError]] = {}


class IsopodError(Exception):
    """The base. `details` holds extra JSON values (a traceback, names of packages...)."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    whose: ClassVar[Whose] = "node"
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details: dict[str, Any] = dict(details or {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            if cls.code in ERRORS:
                raise TypeError(f"error code {cls.code!r} is taken by {ERRORS[cls.code].__name__}")
            ERRORS[cls.code] = cls

    @property
    def exit_status(self) -> int:
        """What the CLI exits with: 2 the caller's fault, 1 the app's, 3 the node's."""
        return {"caller": 2, "app": 1, "node": 3}[self.whose]

    def to_wire(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "whose": self.whose,
            "details": self.details,
        }

    def again(self) -> IsopodError:
        """The same error as a new object, for another waiter: raising one object many times makes
        its traceback grow, with every frame and local in it."""
        return type(self)(self.message, hint=self.hint, details=self.details)

    @staticmethod
    def from_wire(body: Mapping[str, Any]) -> IsopodError:
        """The error a server sent. An unknown code becomes a plain `IsopodError`."""
        kind = ERRORS.get(str(body.get("code")), IsopodError)
        details = body.get("details")
        return kind(
            str(body.get("message", "the server gave no message")),
            hint=str(body.get("hint") or ""),
            details=details if isinstance(details, dict) else {},
        )


ERRORS[IsopodError.code] = IsopodError


# -- the caller's input ---------------------------------------------------------------------


class UsageError(IsopodError):
    code, status, whose = "usage", 400, "caller"


class FolderNotFound(IsopodError):
    code, status, whose = "folder_not_found", 400, "caller"


class FolderEmpty(IsopodError):
    code, status, whose = "folder_empty", 422, "caller"


class ManifestInvalid(IsopodError):
    code, status, whose = "manifest_invalid", 422, "caller"


class NameInvalid(IsopodError):
    code, status, whose = "name_invalid", 422, "caller"
    default_hint = "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"


class NameTaken(IsopodError):
    code, status, whose = "name_taken", 409, "caller"


class AppNotFound(IsopodError):
    code, status, whose = "app_not_found", 404, "caller"
    default_hint = "`isopod apps` lists the apps on this node"


class VersionNotFound(IsopodError):
    code, status, whose = "version_not_found", 404, "caller"
    default_hint = "`isopod app NAME` lists its versions"


class JobNotFound(IsopodError):
    code, status, whose = "job_not_found", 404, "caller"
    default_hint = "`isopod jobs list` lists the jobs of live versions"


class JobUnderWay(IsopodError):
    code, status, whose = "job_under_way", 409, "caller"
    default_hint = "a job has one run at a time: wait for its end, `isopod jobs runs NAME`"


class CommandFailed(IsopodError):
    code, status, whose = "command_failed", 422, "app"


class CommandUnsupported(IsopodError):
    code, status, whose = "command_unsupported", 422, "app"


class JobFailed(IsopodError):
    code, status, whose = "job_failed", 502, "app"


class VolumeNotFound(IsopodError):
    code, status, whose = "volume_not_found", 404, "caller"
    default_hint = "`isopod volumes` lists what there is; `isopod volumes create NAME` makes one"


class VolumeInUse(IsopodError):
    code, status, whose = "volume_in_use", 409, "caller"
    default_hint = "delete that app first, or deploy a version of it that mounts no such volume"


class VolumeTooSmall(IsopodError):
    """`details`: size_mib, needs_mib."""

    code, status, whose = "volume_too_small", 422, "caller"
    default_hint = "`isopod volumes resize NAME --size MIB` makes it larger"


class PathNotFound(IsopodError):
    code, status, whose = "path_not_found", 404, "caller"
    default_hint = "`isopod volumes copy-out NAME / FOLDER` copies all that is there"


class ArchiveInvalid(IsopodError):
    code, status, whose = "archive_invalid", 422, "caller"


class RuntimeNotFound(IsopodError):
    code, status, whose = "runtime_not_found", 404, "caller"
    default_hint = "`isopod runtimes` lists what this node can run"


class DeployInProgress(IsopodError):
    code, status, whose = "deploy_in_progress", 409, "caller"
    default_hint = "wait for the other deploy to end, then deploy again"


class PackageTooLarge(IsopodError):
    code, status, whose = "package_too_large", 413, "caller"
    default_hint = "list what the app does not need in .isopodignore"


class PackageUnsafe(IsopodError):
    code, status, whose = "package_unsafe", 422, "caller"


class PackageCorrupt(IsopodError):
    code, status, whose = "package_corrupt", 422, "caller"
    default_hint = "deploy again; the upload was damaged on its way"


class Unauthorized(IsopodError):
    code, status, whose = "unauthorized", 401, "caller"
    default_hint = "run `isopod login URL`, or set ISOPOD_TOKEN"


class Forbidden(IsopodError):
    code, status, whose = "forbidden", 403, "caller"
    default_hint = "ask for a token with that scope: `isopod tokens create --help`"


class TenantNotFound(IsopodError):
    code, status, whose = "tenant_not_found", 404, "caller"
    default_hint = "`isopod tenants` lists the tenants of this node"


class TenantSuspended(IsopodError):
    code, status, whose = "tenant_suspended", 403, "caller"
    default_hint = "the node's operator suspended this tenant; ask them"


class TokenNotFound(IsopodError):
    code, status, whose = "token_not_found", 404, "caller"
    default_hint = "`isopod tokens` lists the tokens of this tenant"


class MemberNotFound(IsopodError):
    code, status, whose = "member_not_found", 404, "caller"
    default_hint = "`isopod members` lists the members of this tenant"


class TenantInUse(IsopodError):
    code, status, whose = "tenant_in_use", 409, "caller"
    default_hint = "delete its apps and volumes first, or say --force to delete them with it"


class TooManyRequests(IsopodError):
    """`details["retry_after_s"]`: whole seconds, sent as Retry-After too."""

    code, status, whose = "too_many_requests", 429, "caller"
    default_hint = "wait for as long as Retry-After says"


class QuotaExceeded(IsopodError):
    """`details`: quota (its name), limit, used."""

    code, status, whose = "quota_exceeded", 403, "caller"
    default_hint = "free some of it, or ask the node's operator for more"


class HostRefused(IsopodError):
    code, status, whose = "host_refused", 421, "caller"


class SecretNameInvalid(IsopodError):
    code, status, whose = "secret_name_invalid", 422, "caller"


class SecretNotFound(IsopodError):
    code, status, whose = "secret_not_found", 404, "caller"
    default_hint = "`isopod secrets list NAME` lists those of an app"


class CapabilitiesNew(IsopodError):
    code, status, whose = "capabilities_new", 409, "caller"
    default_hint = "`isopod deploy --allow-new` lets it, if that is meant"


class EgressRefused(IsopodError):
    code, status, whose = "egress_refused", 403, "caller"
    default_hint = "only the node's operator can widen what the tenant's apps may list"


class NotFound(IsopodError):
    code, status, whose = "not_found", 404, "caller"


class MethodNotAllowed(IsopodError):
    code, status, whose = "method_not_allowed", 405, "caller"


# -- the app, while it is built -------------------------------------------------------------


class AppNotDetected(IsopodError):
    code, status, whose = "app_not_detected", 422, "app"


class AppSyntaxError(IsopodError):
    code, status, whose = "app_syntax_error", 422, "app"


class ModuleInvalid(IsopodError):
    code, status, whose = "module_invalid", 422, "app"
    default_hint = "docs/wasi.md and docs/reactors.md say what a module may import and must export"


class ModuleTooCostly(IsopodError):
    """It is not tried again for a while: `details["retry_after_s"]`."""

    code, status, whose = "module_too_costly", 422, "app"
    default_hint = (
        "leave out what the app does not need, or split its largest functions; the node's operator"
        " can raise ISOPOD_BUILD_TIMEOUT_S and ISOPOD_BUILD_MEMORY_MIB"
    )


class EntrypointNotFound(IsopodError):
    code, status, whose = "entrypoint_not_found", 422, "app"
    default_hint = 'set [app] entrypoint = "module:object" in isopod.toml'


class EntrypointNotCallable(IsopodError):
    code, status, whose = "entrypoint_not_callable", 422, "app"


class AppFailedToStart(IsopodError):
    code, status, whose = "app_failed_to_start", 422, "app"


class HealthFailed(IsopodError):
    code, status, whose = "health_failed", 422, "app"
    default_hint = "the app must answer its health request ([health] path) with a status below 500"


class SnapshotUnsound(IsopodError):
    code, status, whose = "snapshot_unsound", 422, "app"
    default_hint = (
        "mend what is listed, or deploy without --strict: the app then boots at each start"
    )


class DependencyNotFound(IsopodError):
    code, status, whose = "dependency_not_found", 422, "app"


class DependencyConflict(IsopodError):
    code, status, whose = "dependency_conflict", 422, "app"


class DependencyNativeOnly(IsopodError):
    code, status, whose = "dependency_native_only", 422, "app"


class DependencyInvalid(IsopodError):
    code, status, whose = "dependency_invalid", 422, "app"


class DependencyFailed(IsopodError):
    code, status, whose = "dependency_failed", 502, "node"
    default_hint = "the package index could not be reached or gave a wrong answer; deploy again"


class BuildTimeout(IsopodError):
    code, status, whose = "build_timeout", 422, "app"


class BuildMemoryExceeded(IsopodError):
    """`details`: limit_mib."""

    code, status, whose = "build_memory_exceeded", 422, "app"
    default_hint = (
        "deploy fewer or smaller files; the node's operator can raise ISOPOD_BUILD_MEMORY_MIB"
    )


class BuildFailed(IsopodError):
    code, status, whose = "build_failed", 500, "node"
    default_hint = "the previous version keeps serving; deploy again"


# -- the app, while it serves ---------------------------------------------------------------


class AppUnknown(IsopodError):
    code, status, whose = "app_unknown", 404, "caller"


class GuestFailed(IsopodError):
    code, status, whose = "guest_failed", 502, "app"
    default_hint = "`isopod logs NAME` shows why"


class GuestProtocolError(IsopodError):
    code, status, whose = "guest_protocol_error", 502, "app"
    default_hint = "`isopod logs NAME` shows why"


class DeadlineExceeded(IsopodError):
    code, status, whose = "deadline_exceeded", 504, "app"
    default_hint = "raise limits.deadline_ms in isopod.toml"


class MemoryLimitExceeded(IsopodError):
    code, status, whose = "memory_limit_exceeded", 507, "app"
    default_hint = "raise limits.memory_mib in isopod.toml"


class CpuLimitExceeded(IsopodError):
    code, status, whose = "cpu_limit_exceeded", 504, "app"
    default_hint = "raise limits.cpu_ms_per_request in isopod.toml"


class ResponseTooLarge(IsopodError):
    code, status, whose = "response_too_large", 502, "app"
    default_hint = "raise limits.max_response_mib in isopod.toml"


class StackLimitExceeded(IsopodError):
    code, status, whose = "stack_limit_exceeded", 502, "app"
    default_hint = "the guest recursed deeper than its stack"


class Overloaded(IsopodError):
    code, status, whose = "overloaded", 503, "app"
    default_hint = "raise scaling.max_instances or scaling.queue, or try again"


class AppStarting(IsopodError):
    code, status, whose = "app_starting", 503, "app"
    default_hint = "its first instance is not ready yet: try again in a moment"


class MachineCodeFull(IsopodError):
    code, status, whose = "machine_code_full", 503, "app"
    default_hint = (
        "one tenant's own modules have a share of each worker's room for machine code: try again"
        " when fewer of its apps run, make them smaller, or ask for a worker of its own"
    )


class VolumeBusy(IsopodError):
    code, status, whose = "volume_busy", 503, "app"
    default_hint = "one at a time uses a volume: try again in a moment"


class BodyTooLarge(IsopodError):
    code, status, whose = "body_too_large", 413, "caller"
    default_hint = "the app's limits.max_request_mib bounds request bodies"


class ClientDisconnected(IsopodError):
    code, status, whose = "client_disconnected", 499, "caller"


class ClientTooSlow(IsopodError):
    code, status, whose = "client_too_slow", 408, "caller"


class WebSocketUnsupported(IsopodError):
    code, status, whose = "websocket_unsupported", 501, "app"
    default_hint = "only ASGI apps take WebSockets"


class BadRequest(IsopodError):
    code, status, whose = "bad_request", 400, "caller"


# -- the node -------------------------------------------------------------------------------


class PortInUse(IsopodError):
    code, status, whose = "port_in_use", 500, "node"
    default_hint = "stop what listens there, or choose another with --port (0 picks a free one)"


class NodeAlreadyRunning(IsopodError):
    code, status, whose = "node_already_running", 409, "node"


class NodeNotRunning(IsopodError):
    code, status, whose = "node_not_running", 503, "node"
    default_hint = "start it with `isopod up`, or point to another with --data-dir or ISOPOD_URL"


class NodeUnreachable(IsopodError):
    code, status, whose = "node_unreachable", 503, "node"


class NodeBusy(IsopodError):
    code, status, whose = "node_busy", 503, "node"
    default_hint = "the node's memory budget is used up; try again, or raise it"


class NodeDraining(IsopodError):
    code, status, whose = "node_draining", 503, "node"


class WorkerUnavailable(IsopodError):
    code, status, whose = "worker_unavailable", 503, "node"
    default_hint = "it is being started, or was moved; try again"


class WorkerGone(IsopodError):
    code, status, whose = "worker_gone", 502, "node"
    default_hint = "the app may have done what was asked; it is started again"


class DiskFull(IsopodError):
    code, status, whose = "disk_full", 507, "node"
    default_hint = "free space in the node's data directory, then do it again; nothing was lost"


class BlobCorrupt(IsopodError):
    code, status, whose = "blob_corrupt", 500, "node"
    default_hint = "the stored bytes changed; restore the file from a backup or deploy again"


class BlobMissing(IsopodError):
    code, status, whose = "blob_missing", 500, "node"
    default_hint = "restore the file from a backup or deploy again"


class FilesUnreadable(IsopodError):
    """Not damage: the same file may be read in a moment."""

    code, status, whose = "files_unreadable", 503, "node"
    default_hint = "the node is short of descriptors or memory, or its disk fails; try again"


class StateCorrupt(IsopodError):
    code, status, whose = "state_corrupt", 500, "node"
    default_hint = "restore state.db from a backup; isopod will not serve from a damaged database"


class SecretsUnreadable(IsopodError):
    code, status, whose = "secrets_unreadable", 500, "node"


class StateBusy(IsopodError):
    code, status, whose = "state_busy", 503, "node"


class DataDirUnusable(IsopodError):
    code, status, whose = "data_dir_unusable", 500, "node"


class RuntimeNotPrepared(IsopodError):
    code, status, whose = "runtime_not_prepared", 503, "node"
    default_hint = "run `isopod runtimes prepare NAME`"


class RuntimePrepareFailed(IsopodError):
    code, status, whose = "runtime_prepare_failed", 500, "node"


class SandboxUnavailable(IsopodError):
    """`details["missing"]`: what the kernel lacks or forbids."""

    code, status, whose = "sandbox_unavailable", 500, "node"
    default_hint = "`isopod doctor` says what is missing; without --require-sandbox the node starts"


class StatementInvalid(IsopodError):
    code, status, whose = "statement_invalid", 422, "caller"


class EngineError(IsopodError):
    code, status, whose = "engine_error", 500, "node"


@contextmanager
def disk_full_is_clear(where: str) -> Iterator[None]:
    """Turn "no space left on device" and "quota exceeded" into `DiskFull` naming `where`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left on the disk of {where!r}") from error
        raise
