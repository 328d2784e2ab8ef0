"""What an operator may configure, and the only place that reads the environment.

An option given on the command line wins over its `ISOPOD_...` variable, which wins over the
settings file, which wins over the default. Settings reach child processes as JSON on their standard
input (server.handover). Bad values raise `SettingInvalid`; the command line turns it into a usage
error (`errors` is a sibling of this module, so it cannot be raised here).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from isopod import settings_file
from isopod.settings_file import Prices, SettingInvalid, SettingsFile

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
_PATHS = ("data_dir", "cache_dir", "extra_ca", "secrets_key")


def _cpus() -> int:
    # The cores this process may run on: fewer than the machine's in a container.
    return len(os.sched_getaffinity(0)) or 1


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "isopod"


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "isopod"


def _config_dir() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "isopod"


def _half_of_memory_mib() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # a container may have less than the machine
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(64, total // 2 // 2**20)


@dataclass(frozen=True)
class NodeSettings:
    """One node's configuration. Every field but the prices is an `ISOPOD_...` variable, and many
    are options; all but data_dir may stand in the settings file."""

    data_dir: Path = field(default_factory=_default_data_dir)  # state, blobs, logs; one node each
    host: str = "127.0.0.1"  # address the gateway listens on
    port: int = 8080  # the gateway's; 0 picks a free one
    control_host: str = "127.0.0.1"  # apart from `host`: serving apps need not expose control
    control_port: int = 8081  # 0 picks a free one
    control_names: tuple[str, ...] = ()  # host names, besides loopback, control answers to
    workers: int = field(default_factory=_cpus)  # gateway processes; one per core
    cordons: int = 16  # tenants that may have a worker process of their own, at most
    domain: str = "localhost"  # apps answer at NAME.domain
    cache_dir: Path = field(default_factory=_default_cache_dir)  # compiled modules, shared
    memory_budget_mib: int = field(default_factory=_half_of_memory_mib)  # of all instances
    image_cache_mib: int = 8192  # memory images on disk, ready to be mapped
    extra_ca: Path = Path()  # PEM: authorities that apps trust beside the machine's; Path(): none
    secrets_key: Path = Path()  # the file that seals secrets; Path(): secrets.key in data_dir
    keep_versions: int = 20  # of each app, to roll back to; its live one stays in any case
    keep_unused_h: float = 168.0  # a blob that no version needs stays so long: for late restores
    new_state: bool = False  # start with an empty state.db although there are blobs
    trusted_proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-* are believed
    # "postgres:5432", "acme/10.0.0.5:5432", "*/cache:6379": where apps of the default tenant, of
    # acme, of all may connect although the address is private (docs/network.md).
    egress_private: tuple[str, ...] = ()
    drain_s: float = 10.0  # a stopping worker gives its requests so long
    build_timeout_s: float = 600.0  # wall clock of one build
    build_memory_mib: int = 4096  # of one build, with what it starts
    require_sandbox: bool = False  # refuse to start where the kernel lacks a part of it
    stall_s: float = 10.0  # a worker whose loop stands still for so long is replaced; 0: never
    log_mib: int = 16  # of one app's log; what is older than that goes
    log_keep_h: float = 720.0  # a line is shown for so long; 0: however old it is
    usage_keep_h: float = 72.0  # single usage records, and their sums by minute; hours stay
    usage_max_records: int = 5_000_000  # of these at most, at 140 bytes each
    precise_clocks: bool = False  # guests see nanoseconds; only for apps you trust
    debug: bool = False  # tracebacks of our own faults on standard error
    prices: Prices = field(default_factory=Prices)  # of the settings file's [prices]

    def __post_init__(self) -> None:
        for name in ("port", "control_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise SettingInvalid(f"{name} {getattr(self, name)!r} is not within 0 to 65535")
        if not 1 <= self.workers <= 512:
            raise SettingInvalid(f"workers {self.workers!r} is not within 1 to 512")
        if not 0 <= self.cordons <= 256:
            raise SettingInvalid(f"cordons {self.cordons!r} is not within 0 to 256")
        for name in (
            *("memory_budget_mib", "image_cache_mib", "build_memory_mib"),
            *("usage_max_records", "keep_versions", "log_mib"),
        ):
            if getattr(self, name) < 1:
                raise SettingInvalid(f"{name} {getattr(self, name)!r} is below 1")
        for name in ("drain_s", "build_timeout_s", "stall_s"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise SettingInvalid(f"{name} {getattr(self, name)!r} is not within 0 to 86400")
        if not 0 <= self.keep_unused_h <= 87_600:
            raise SettingInvalid(f"keep_unused_h {self.keep_unused_h!r} is not within 0 to 87600")
        if not 0 <= self.log_keep_h <= 87_600:
            raise SettingInvalid(f"log_keep_h {self.log_keep_h!r} is not within 0 to 87600")
        if not 1 <= self.usage_keep_h <= 87_600:
            raise SettingInvalid(f"usage_keep_h {self.usage_keep_h!r} is not within 1 to 87600")
        labels = self.domain.split(".")
        if not all(part and part.replace("-", "").isalnum() for part in labels):
            raise SettingInvalid(f"domain {self.domain!r} is not a host name")

    @staticmethod
    def load(*, config: Path | None = None, **overrides: object) -> NodeSettings:
        """Options (None: not given) over the environment over the settings file over the
        defaults. `config` is the file, else ISOPOD_CONFIG names it, else there is none."""
        values: dict[str, Any] = {}
        path = config or Path(os.environ.get(variable("config"), ""))
        if path.name:
            file = settings_file.read(path.expanduser(), _file_kinds())
            values = {**_checked(file), "prices": file.prices}
        for spec in fields(NodeSettings):
            if spec.name == "prices":
                continue
            given = overrides.get(spec.name)
            text = os.environ.get(variable(spec.name))
            if given is not None:
                values[spec.name] = given
            elif text is not None and text != "":
                values[spec.name] = _parse(spec.name, str(spec.type), text)
        for name in _PATHS:
            if name in values:
                values[name] = Path(values[name]).expanduser().absolute()
        return NodeSettings(**values)

    def to_json(self) -> dict[str, Any]:
        body = asdict(self)
        paths = {name: str(getattr(self, name)) for name in _PATHS}
        return body | paths | {"prices": self.prices.to_json()}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> NodeSettings:
        values = dict(body)
        for name in _PATHS:
            values[name] = Path(values[name])
        for name in ("trusted_proxies", "control_names", "egress_private"):
            values[name] = tuple(values[name])
        values["prices"] = Prices.from_json(values["prices"])
        return NodeSettings(**values)

    @property
    def state_path(self) -> Path:
        return self.data_dir / "state.db"

    @property
    def routes_path(self) -> Path:
        # In a folder of its own: workers may read all of that, and files beside it come and go.
        return self.data_dir / "routes" / "routes.db"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def trees_dir(self) -> Path:
        return self.data_dir / "trees"

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

    @property
    def machine_code_dir(self) -> Path:
        """Of apps' own modules. Neither builders nor workers write here."""
        return self.data_dir / "machine-code"

    @property
    def volumes_dir(self) -> Path:
        """A folder for each tenant in it, and in that one for each volume."""
        return self.data_dir / "volumes"

    @property
    def apart_volumes_dir(self) -> Path:
        """The same, of what no shared worker may open."""
        return self.data_dir / "volumes-apart"

    @property
    def unused_path(self) -> Path:
        """Since when blobs are unused."""
        return self.data_dir / "unused.json"

    @property
    def former_dir(self) -> Path:
        """Which images versions had under engines that ran here before."""
        return self.data_dir / "former"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    def admin_path(self, worker: int) -> Path:
        """A worker's admin socket."""
        return self.run_dir / f"worker-{worker}.sock"

    def worker_tmp(self, worker: int) -> Path:
        """The /tmp of each of its guests is a folder in it."""
        return self.run_dir / "tmp" / f"worker-{worker}"

    @property
    def cordons_dir(self) -> Path:
        """A folder for each tenant that has a worker of its own: what only that may see."""
        return self.data_dir / "cordons"

    @property
    def quota_dir(self) -> Path:
        """What each tenant uses, over all workers."""
        return self.run_dir / "quota"

    @property
    def uploads_dir(self) -> Path:
        return self.data_dir / "uploads"

    @property
    def usage_dir(self) -> Path:
        return self.data_dir / "usage"

    @property
    def ledger_path(self) -> Path:
        return self.usage_dir / "ledger.db"

    @property
    def storage_path(self) -> Path:
        return self.usage_dir / "storage.db"

    @property
    def volume_storage_path(self) -> Path:
        return self.usage_dir / "volumes.db"

    @property
    def signing_key_path(self) -> Path:
        """Of usage statements. Not below usage/, where workers have folders."""
        return self.data_dir / "statement.key"

    @property
    def sealing_key_path(self) -> Path:
        """Of apps' secrets. Never in a folder that a worker may read."""
        return self.secrets_key if self.secrets_key.name else self.data_dir / "secrets.key"

    @property
    def node_id_path(self) -> Path:
        return self.usage_dir / "node"

    @property
    def spools_dir(self) -> Path:
        """A folder for each worker, which may write its own and no other: SQLite makes files
        beside the one it opens."""
        return self.usage_dir / "spools"

    def spool_path(self, worker: int) -> Path:
        return self.spools_dir / str(worker) / "spool.db"

    @property
    def token_path(self) -> Path:
        return self.data_dir / "token"

    @property
    def node_path(self) -> Path:
        return self.data_dir / "node.json"


@dataclass(frozen=True)
class ClientSettings:
    """Where the command line looks for its node."""

    url: str = ""  # ISOPOD_URL
    token: str = field(default="", repr=False)  # ISOPOD_TOKEN
    tenant: str = ""  # --tenant, else ISOPOD_TENANT: which one the operator acts for
    data_dir: Path | None = None  # --data-dir: wins over everything
    env_data_dir: Path | None = None  # ISOPOD_DATA_DIR
    default_data_dir: Path = field(default_factory=_default_data_dir)
    login_path: Path = field(default_factory=lambda: _config_dir() / "login.json")

    @staticmethod
    def load(data_dir: Path | None = None, tenant: str | None = None) -> ClientSettings:
        from_env = os.environ.get(variable("data_dir"))
        return ClientSettings(
            url=os.environ.get("ISOPOD_URL", ""),
            token=os.environ.get("ISOPOD_TOKEN", ""),
            tenant=tenant or os.environ.get("ISOPOD_TENANT", ""),
            data_dir=data_dir.expanduser().absolute() if data_dir else None,
            env_data_dir=Path(from_env).expanduser().absolute() if from_env else None,
        )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"ISOPOD_{name.upper()}"


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child that starts others: ours, without the client's token."""
    return {k: v for k, v in os.environ.items() if k != "ISOPOD_TOKEN"} | extra


def bare_environment(**extra: str) -> dict[str, str]:
    """For one that touches what strangers wrote: what Python and the C library need to start."""
    kept = ("PYTHON", "LC_", "LD_LIBRARY_PATH")
    env = {k: v for k, v in os.environ.items() if k.startswith(kept) or k in {"LANG", "TZ"}}
    return env | extra


def forget_environment() -> None:
    """Of this process: it holds what its operator's shell held."""
    os.environ.clear()


def child_value(name: str) -> str:
    """A value that our parent process handed us, such as `ISOPOD_READY_FD`; "" when absent."""
    return os.environ.get(name, "")


def _file_kinds() -> dict[str, str]:
    """What the settings file's [node] may hold: name and annotated type."""
    apart = {"data_dir", "prices"}
    return {spec.name: str(spec.type) for spec in fields(NodeSettings) if spec.name not in apart}


def _checked(file: SettingsFile) -> dict[str, Any]:
    """Each of the file's values by itself, so that a wrong one is told with its line."""
    for name, value in file.node.items():
        try:
            NodeSettings(**{name: value})
        except SettingInvalid as bad:
            file.refuse("node", name, f"is wrong: {bad}")
    return dict(file.node)


def _parse(name: str, kind: str, text: str) -> object:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        raise SettingInvalid(f"{variable(name)} {text!r} is not a number") from None
    if kind == "bool":
        if text.lower() not in _TRUE | _FALSE:
            raise SettingInvalid(f"{variable(name)} {text!r} is neither true nor false")
        return text.lower() in _TRUE
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


_INDEX_VARIABLES = frozenset(
    {
        *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_EXCLUDE_NEWER", "UV_FIND_LINKS"),
        *("UV_INSECURE_HOST", "UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_NO_INDEX"),
        *("UV_OFFLINE", "UV_SYSTEM_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "BUNDLE_MIRROR__ALL"),
    }
)


def npm_environment() -> dict[str, str]:
    """How an operator says where npm's packages come from: its own variables."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _INDEX_VARIABLES
        or name.upper().startswith("NPM_CONFIG_")
        or name == "NODE_EXTRA_CA_CERTS"
    }


def gem_mirror() -> str:
    """Where an operator says that gems come from instead of their registry, in Bundler's own
    variable; "" for nowhere else."""
    return os.environ.get("BUNDLE_MIRROR__ALL", "")


_GO_VARIABLES = frozenset(
    {
        *("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK", "GONOPROXY", "GOPRIVATE"),
        *("GOINSECURE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    }
)


def go_environment() -> dict[str, str]:
    """How an operator says where Go's modules come from: its own variables."""
    return {name: value for name, value in os.environ.items() if name.upper() in _GO_VARIABLES}


def package_index_environment() -> dict[str, str]:
    """How an operator says where packages come from: uv's own variables for indexes and their
    credentials, certificates and proxies. Nothing else of the environment reaches uv."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _INDEX_VARIABLES or name.startswith(("UV_INDEX", "UV_HTTP_"))
    }
