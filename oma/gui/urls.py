"""The addresses of our own pages; ids are encoded, whatever an existing installation put into them."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def confirm_url(context_id: str) -> str:
    """The confirmation: what would be done to the VM, or why nothing will be."""
    return f"/vms/{quote(context_id, safe='')}/cleanup"


def job_url(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def estate_url(**query: str | None) -> str:
    """`/` with those query values that are not empty."""
    pairs = {key: value for key, value in query.items() if value}
    return f"/?{urlencode(pairs)}" if pairs else "/"
