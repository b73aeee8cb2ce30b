"""A few entities with ids that no other test of the session uses: the real processes are shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from tests.contract.ports.sides import Side

MADE_AT = datetime(2026, 3, 1, 1, 10, tzinfo=UTC)
SIZE = 1 << 20


def new_id() -> str:
    return str(uuid4())


@dataclass
class Scene:
    """A test VM; a root and a data disk on it, a free volume; a snapshot of the free one."""

    side: Side
    vm_state: str = "Stopped"
    vm: str = field(default_factory=new_id)
    root: str = field(default_factory=new_id)
    data: str = field(default_factory=new_id)
    free: str = field(default_factory=new_id)
    snapshot: str = field(default_factory=new_id)
    data_snapshot: str = field(default_factory=new_id)

    async def seed(self) -> Scene:
        disk = {"size_bytes": SIZE}
        await self.side.seed(vms=[{"id": self.vm, "name": "pgtest1-test", "state": self.vm_state}])
        await self.side.seed(
            volumes=[
                {"id": self.root, "name": "disk-0", "vm_id": self.vm, "device_id": 0, **disk},
                {"id": self.data, "name": "disk-1", "vm_id": self.vm, **disk},
                {"id": self.free, "name": "disk-2", **disk},
            ]
        )
        made = MADE_AT.isoformat()
        await self.side.seed(
            snapshots=[
                {"id": self.snapshot, "volume_id": self.free, "name": "test-failover-2", "created": made},
                {"id": self.data_snapshot, "volume_id": self.data, "name": "test-failover-1", "created": made},
            ]
        )
        return self
