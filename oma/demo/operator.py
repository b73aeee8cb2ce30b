"""What an operator's program does: plain HTTP to the daemon's public API, as curl would."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

LONGEST_WAIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """The problem document's stable code; empty for a success."""
        return str(self.body.get("code", ""))

    @property
    def word(self) -> str:
        """Status and code, or what a success says about the replica."""
        return f"{self.status} {self.code or self.body.get('replica', '')}".strip()


class Operator:
    """Use as `async with Operator(url)`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=LONGEST_WAIT_S), connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def clean_up(
        self, vm_name: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The main job; by default it waits for the run's end."""
        return await self.ask("POST", cleanup_path(vm_name), body, headers)

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`path` is sent as it is, already encoded."""
        async with self._open().request(
            method, URL(self.url + path, encoded=True), json=body, headers=dict(headers or {})
        ) as response:
            text = await response.text()
            found = json.loads(text) if text else {}
            return Answer(response.status, dict(response.headers), found if isinstance(found, dict) else {})

    async def is_ready(self) -> bool:
        try:
            async with self._open().get(f"{self.url}/readyz") as response:
                return response.status == HTTPStatus.OK
        except aiohttp.ClientConnectionError:
            return False

    async def follow(self, job_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """The job's events from its first one, live, until the stream ends."""
        async with self._open().get(f"{self.url}/api/v1/jobs/{job_id}/events") as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("Operator is used outside of its `async with` block")
        return self._session


def cleanup_path(vm_name: str) -> str:
    return f"/api/v1/failover/{quote(vm_name, safe='')}/cleanup-failed"
