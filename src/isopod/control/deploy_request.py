"""What a caller asks to be deployed, and which earlier requests it is like."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isopod.errors import UsageError
from isopod.model.ids import AppName, Digest
from isopod.model.tenant import DEFAULT_TENANT, TenantName
from isopod.state.versions import MadeFrom

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """`name` is what the caller insists on; without it the name comes from isopod.toml or from
    `folder_name`. `source` says which machine and folder it came from, "" when unknown. `strict`:
    only a version with a sound snapshot may go live. `expected_name`: the name that the package
    will give, as the caller takes it; the app is tried with the secrets of that one. `allow_new`:
    it may ask for more than the live version does."""

    package: Digest
    name: AppName | None
    folder_name: str
    source: str
    env: Mapping[str, str]
    strict: bool = False
    expected_name: AppName | None = None
    allow_new: bool = False

    @property
    def likely_name(self) -> AppName | None:
        """Whose secrets the app is tried with, and whose live version it is compared to before it
        is built."""
        return self.name or self.expected_name

    def made_from(
        self, runtimes: str, tenant: TenantName, secret_names: Sequence[str] = ()
    ) -> MadeFrom:
        """Equal for two requests that would give the same version; in part, for two that would
        give the same but for the name, or for the values of `env`. Never for two tenants: that
        somebody else deployed the same, even with the same secrets, is nobody's to find out."""
        shared = {"package": self.package, "runtimes": runtimes}
        if tenant != DEFAULT_TENANT:  # versions from before there were tenants keep their digests
            shared["tenant"] = tenant
        if secret_names:  # an image is taken with the names, and holds no value
            shared["secrets"] = " ".join(sorted(secret_names))
        env = dict(sorted(self.env.items()))
        folder_name = "" if self.name else self.folder_name
        return MadeFrom(
            input=_digest(
                {**shared, "name": self.name or "", "folder_name": folder_name, "env": env}
            ),
            twin=_digest({**shared, "env": env}),
            shape=_digest({**shared, "env_names": list(env)}),
        )

    def check(self) -> None:
        """UsageError that names the variable and never its value."""
        for key, value in self.env.items():
            if not _ENV_NAME.fullmatch(key):
                raise UsageError(
                    f"{key[:80]!r} is not a name of an environment variable",
                    hint="use letters, digits and '_', not starting with a digit",
                )
            if "\0" in value:
                raise UsageError(f"the value of environment variable {key!r} holds a NUL")
        if sum(len(k) + len(v.encode()) for k, v in self.env.items()) > _ENV_BYTES:
            raise UsageError(f"the environment variables are larger than {_ENV_BYTES // 1024} KiB")


def _digest(body: Mapping[str, object]) -> Digest:
    return Digest(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest())
