"""The audit log: who changed what, when and from where. Rows are only ever added; the database
itself refuses anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import insert, select

from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import audit


@dataclass(frozen=True, slots=True)
class AuditEntry:
    at: float  # seconds since the epoch
    tenant: str  # whose log it is in
    actor: str  # the member's name, or "operator"
    token_id: str  # "" for the node's own token
    address: str  # where the request came from
    action: str  # "app.deploy"
    target: str  # the app's name, the token's id...
    outcome: str  # "ok", or the error's code
    details: Mapping[str, object] = field(default_factory=dict)
    id: int = 0  # counts the node's entries; 0 until it is kept


class Audit:
    """One tenant's log; `tenant` None: everybody's, for the operator."""

    def __init__(self, tenant: TenantName | None, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def add(self, entry: AuditEntry) -> None:
        with self._writing() as db:
            db.execute(
                insert(audit).values(
                    at=entry.at,
                    tenant=entry.tenant if self._tenant is None else self._tenant,
                    actor=entry.actor,
                    token_id=entry.token_id,
                    address=entry.address,
                    action=entry.action,
                    target=entry.target,
                    outcome=entry.outcome,
                    details=json.dumps(dict(entry.details)),
                )
            )

    def last(self, *, since: float, limit: int) -> list[AuditEntry]:
        """Newest first."""
        found = select(audit).where(audit.c.at >= since).order_by(audit.c.id.desc()).limit(limit)
        if self._tenant is not None:
            found = found.where(audit.c.tenant == self._tenant)
        with self._reading() as db:
            rows = [dict(row._mapping) for row in db.execute(found)]
        for row in rows:
            row["details"] = json.loads(row["details"])
        return [AuditEntry(**row) for row in rows]
