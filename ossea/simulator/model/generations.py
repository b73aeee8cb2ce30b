"""Settings of a whole generation of servers, by name.

What differs is read from CloudStack's sources, except that releases between two of these may lie anywhere between.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_OLD: Mapping[str, Any] = {
    "custom_job_id_conflict_code": 431,
    "real_job_result_code": False,
    "event_resource": False,
    "deploy_says_starting": True,
    "list_pending_jobs_only": False,
    "max_data_disks": 6,
    "restart": "fail_and_lose_volumes",
    "revert_mode": "in_place",
    "root_dies_at": "expunge",
}

GENERATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "4.5": {**_OLD, "version": "4.5.2", "custom_job_id": False, "ids_parameter": False},
        "4.11": {**_OLD, "version": "4.11.1.0", "custom_job_id": True, "ids_parameter": True},
        "4.20": {
            "version": "4.20.1.0",
            "custom_job_id": True,
            "custom_job_id_conflict_code": 530,
            "ids_parameter": True,
            "real_job_result_code": True,
            "event_resource": True,
            "deploy_says_starting": False,
            "list_pending_jobs_only": True,
            "max_data_disks": 64,
            "restart": "fail",
            "revert_mode": "replace",
            "root_dies_at": "destroy",
        },
    }
)
