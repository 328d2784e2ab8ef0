"""Another key for the node's secrets, in the place of the one that they are sealed with.

    NEXT made -> every secret sealed anew, in one transaction -> FORMER kept -> NEXT takes the place

While NEXT is there, some of it is undone: whoever opens the node's state next finishes it, before
anybody needs a secret. So it may be killed anywhere. Only while no worker runs: the processes that
open secrets for them read the key when they start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isopod.errors import SecretsUnreadable, UsageError
from isopod.model.secret import bound_to
from isopod.owned_file import sync, write_owned
from isopod.sealing import SealingKey
from isopod.state.database import State


@dataclass(frozen=True, slots=True)
class Rotated:
    """`unreadable`: secrets that the former key did not open either; they are as they were."""

    key: str
    former: str
    sealed: int
    unreadable: int
    former_path: str


def next_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def former_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.former")


def begin_rotation(path: Path) -> None:
    """Make the next key. UsageError when there is none yet."""
    if not path.exists():
        raise UsageError(
            f"there is no key of secrets at {str(path)!r}",
            hint="the first start of a node makes it; ISOPOD_SECRETS_KEY names another place",
        )
    SealingKey.at(next_path(path))


def finish_rotation(path: Path, state: State) -> Rotated | None:
    """None when none has begun. DiskFull, StateBusy, DataDirUnusable; then it is not done, and
    nothing is lost."""
    if not next_path(path).exists():
        return None
    former, key = SealingKey.at(path), SealingKey.at(next_path(path))
    sealed = unreadable = 0
    with state.transaction() as t:
        for (tenant, app), secrets in t.node.secrets().items():
            anew = {}
            for name, text in secrets.items():
                bound = bound_to(tenant, app, name)
                try:
                    anew[name] = key.seal(_open(text, former, key, bound), bound_to=bound)
                except SecretsUnreadable:
                    unreadable += 1
            t.of(tenant).secrets.seal_anew(app, anew)
            sealed += len(anew)
    # Backups of the state from before need it.
    write_owned(former_path(path), path.read_bytes(), durable=True)
    sync(path.parent)
    next_path(path).replace(path)
    sync(path.parent)
    return Rotated(key.key_id, former.key_id, sealed, unreadable, str(former_path(path)))


def _open(text: str, former: SealingKey, key: SealingKey, bound: str) -> str:
    try:
        return former.open(text, bound_to=bound)
    except SecretsUnreadable:
        return key.open(text, bound_to=bound)  # before it was killed
