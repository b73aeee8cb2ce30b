"""Requests signed by hand, as Java would: independent of the simulator's own code and of the client libraries."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import quote_plus

import aiohttp

from tests.integration.simulator.process import KEY, SECRET


def signed(secret: str = SECRET, **params: str) -> dict[str, str]:
    full = {"apiKey": KEY, "response": "json", **params}
    pairs = []
    for name in sorted(full):
        value = quote_plus(full[name]).replace("+", "%20").replace("~", "%7E").replace("%2A", "*")
        pairs.append(f"{name}={value}")
    digest = hmac.new(secret.encode(), "&".join(pairs).lower().encode(), hashlib.sha1).digest()
    return {**full, "signature": base64.b64encode(digest).decode()}


async def get(api: str, command: str, **params: str) -> tuple[int, dict[str, Any]]:
    """HTTP status and the whole answer."""
    return await send(api, signed(command=command, **params))


async def send(api: str, params: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(api, params=params) as response:
        return response.status, await response.json()


async def post(api: str, command: str, **params: str) -> int:
    """As a form: aiohttp sends a GET again by itself when the connection is cut, a POST never."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(api, data=signed(command=command, **params)) as response,
    ):
        return response.status


async def body(api: str, command: str, **params: str) -> dict[str, Any]:
    status, answer = await get(api, command, **params)
    assert status == 200, answer
    return dict(answer[f"{command.lower()}response"])


async def finish(api: str, command: str, **params: str) -> dict[str, Any]:
    """Run an asynchronous command; the job's row when it has ended."""
    return await follow(api, str((await body(api, command, **params))["jobid"]))


async def follow(api: str, job_id: str) -> dict[str, Any]:
    while True:
        job = await body(api, "queryAsyncJobResult", jobid=job_id)
        if job["jobstatus"] != 0:
            return job
