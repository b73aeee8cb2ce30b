"""Templates and static files, loaded once, and the headers that every page carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from oma.gui import words
from oma.service.answers import as_rfc3339

TEMPLATE_NAMES: Final = ("base.html", "parts.html", "estate.html", "confirm.html", "job.html", "problem.html")
CONTENT_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Referrer-Policy is not `no-referrer`: browsers would then send `Origin: null` with our own forms."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file; `url` changes with its content, so it may be cached for ever."""

    url: str
    body: bytes
    content_type: str


class Renderer:
    """Renders pages; everything is read from disk here, nothing while a request waits."""

    def __init__(self) -> None:
        self.assets = _load_assets()
        environment = Environment(
            loader=PackageLoader("oma.gui"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=-1,
        )
        environment.globals["static"] = {name: asset.url for name, asset in self.assets.items()}
        environment.filters["rfc3339"] = as_rfc3339
        environment.filters["time_words"] = words.time_words
        environment.filters["split_command"] = words.split_command
        environment.filters["size_words"] = words.size_words
        environment.filters["duration_words"] = words.duration_words
        self._templates: dict[str, Template] = {name: environment.get_template(name) for name in TEMPLATE_NAMES}

    def page(self, template: str, status: int = 200, **values: Any) -> web.Response:
        """An HTML answer with all security headers."""
        return web.Response(
            text=self._templates[template].render(**values),
            status=status,
            content_type="text/html",
            charset="utf-8",
            headers=PAGE_HEADERS,
        )

    def find_asset(self, name: str) -> Asset | None:
        return self.assets.get(name)


def _load_assets() -> dict[str, Asset]:
    assets: dict[str, Asset] = {}
    for file in resources.files("oma.gui").joinpath("static").iterdir():
        body = file.read_bytes()
        mark = hashlib.sha256(body).hexdigest()[:12]
        content_type = CONTENT_TYPES[file.name.rpartition(".")[2]]
        assets[file.name] = Asset(f"/static/{file.name}?v={mark}", body, content_type)
    return assets
