"""The addresses of our own pages; ids are encoded, whatever an existing installation put into them."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def confirm_url(context_id: str, expected: str | None = None) -> str:
    """The confirmation; `expected` is the digest of a plan that somebody confirmed and that is no longer current."""
    query = f"?{urlencode({'expected': expected})}" if expected else ""
    return f"/vms/{quote(context_id, safe='')}/cleanup{query}"


def job_url(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def estate_url(**query: str | None) -> str:
    """`/` with those query values that are not empty."""
    pairs = {key: value for key, value in query.items() if value}
    return f"/?{urlencode(pairs)}" if pairs else "/"
