"""CloudStack as a pure state machine: explicit time, no input or output, no wall clock.

`Model(settings, seed)` takes commands with `submit(command, params, now)`, moves with `advance(now)`, which answers the
effects on bytes and devices, and says with `next_due()` when something happens next. The HTTP simulator drives it on
real time, a fake on virtual time.
"""

from ossea.simulator.model.effects import (
    ContentReverted,
    CopyStarted,
    DeviceAppeared,
    DeviceGone,
    Effect,
    RevertStarted,
    SnapshotErased,
    VolumeCreated,
    VolumeErased,
    serial_of,
)
from ossea.simulator.model.errors import ApiError
from ossea.simulator.model.faults import Fault, FaultKind, fault_from_json
from ossea.simulator.model.machine import Model
from ossea.simulator.model.settings import Settings

__all__ = [
    "ApiError",
    "ContentReverted",
    "CopyStarted",
    "DeviceAppeared",
    "DeviceGone",
    "Effect",
    "Fault",
    "FaultKind",
    "Model",
    "RevertStarted",
    "Settings",
    "SnapshotErased",
    "VolumeCreated",
    "VolumeErased",
    "fault_from_json",
    "serial_of",
]
