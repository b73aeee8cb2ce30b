"""A person says that somebody else's marker was taken off; a fresh look at CloudStack confirms it."""

from __future__ import annotations

import asyncio

from oma.domain.errors import Code, OmaError
from oma.domain.issues import Issue
from oma.domain.resolving import Resolution
from oma.domain.world import Marked
from oma.ports import UpstreamError
from oma.service.deps import Deps


async def confirm_lifted(deps: Deps, issue: Issue, resolution: Resolution) -> str:
    """What was seen. Raises `invalid_request`, `state_unknown` in silence, and `resolution_contradicted`."""
    if resolution is not Resolution.APPLIED:
        raise OmaError(
            Code.INVALID_REQUEST,
            f"{resolution.value} makes no sense for {issue.kind}; possible: {Resolution.APPLIED.value}.",
            field="resolution",
            allowed=[Resolution.APPLIED.value],
            vm_name=issue.vm_name,
        )
    asked = [
        (what, [str(one) for one in issue.target.get(key, ())])
        for what, key in ((Marked.VOLUME, "volume_ids"), (Marked.SNAPSHOT, "snapshot_ids"))
    ]
    value = issue.evidence.get("value")
    try:
        async with asyncio.timeout(deps.observe_timeout_s):
            marks = [mark for what, ids in asked if ids for mark in await deps.cloud.list_marks_of(what, ids)]
    except (TimeoutError, UpstreamError) as error:
        raise OmaError(
            Code.STATE_UNKNOWN,
            f"Whether the marker {value} is off can't be told now ({error or 'no answer'}); nothing was written.",
            vm_name=issue.vm_name,
            next="See that CloudStack answers (oma doctor), then say it again.",
        ) from error
    left = [one.volume_id for one in marks if one.value == value]
    if left:
        raise OmaError(
            Code.RESOLUTION_CONTRADICTED,
            f"CloudStack still shows the marker {value} on {', '.join(left)}.",
            vm_name=issue.vm_name,
            resolution=resolution.value,
            evidence={"marked": left, "value": value},
            guidance=list(issue.guidance),
            next=f"Take it off first, when nobody works on the volume: oma issue get -c {issue.id}",
        )
    return f"CloudStack shows the marker {value} on none of them any more."
