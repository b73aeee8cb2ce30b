"""The OpenAPI 3.1 document, built from the routes and the shapes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from oma.http.shapes import SCHEMAS
from oma.http.site import Route


def product_version() -> str:
    try:
        return version("oma-cleanup")
    except PackageNotFoundError:
        return "0"


VERSION: Final = product_version()


def build_openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """Every route under its path; the document of a route stands next to its handler."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = dict(route.operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OMA clean-up daemon",
            "version": VERSION,
            "summary": "Puts a VM right after a failed failover, or says exactly what is uncertain.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
