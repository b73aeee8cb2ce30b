"""`/openapi.json`, and `/docs`: the same document as a page, and a page for each error code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from aiohttp import web

from appliance.web import as_json
from oma.domain.errors import TITLES, Code, RetryClass, retry_class
from oma.http.described import answers_text, in_path, operation
from oma.http.problems import status_of
from oma.http.site import Route

OPENAPI: Final = web.AppKey("openapi", dict[str, Any])

RETRY_WORDS: Final = {
    RetryClass.NEVER: "Asking again unchanged does not help.",
    RetryClass.LATER: "Asking again later, unchanged, can help.",
    RetryClass.AFTER_CHANGE: "Asking again helps after what the answer names was put right.",
}
STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f2f4f7}pre{padding:.8rem;overflow:auto}"
    "table{border-collapse:collapse}td,th{border:1px solid #d0d5dd;padding:.3rem .6rem;text-align:left}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #d0d5dd}"
)


async def show_openapi(request: web.Request) -> web.Response:
    return web.Response(text=as_json(request.app[OPENAPI]), content_type="application/json")


async def show_docs(request: web.Request) -> web.Response:
    document = request.app[OPENAPI]
    operations = [
        _operation(method, path, described)
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]
    shapes = [
        f'<h3 id="{escape(name)}">{escape(name)}</h3><pre>{escape(json.dumps(shape, indent=2))}</pre>'
        for name, shape in document["components"]["schemas"].items()
    ]
    codes = f"<h2>Error codes</h2>{_codes()}"
    title = document["info"]["title"]
    return _page(title, f"<h1>{escape(title)}</h1>{''.join(operations)}{codes}<h2>Shapes</h2>{''.join(shapes)}")


async def show_error(request: web.Request) -> web.Response:
    """What `type` of a problem document leads to."""
    try:
        code = Code(request.match_info["code"])
    except ValueError:
        raise web.HTTPNotFound from None
    words = RETRY_WORDS[retry_class(code)]
    return _page(
        code.value,
        f"<h1>{escape(TITLES[code])}</h1><p><code>{code.value}</code>, HTTP {int(status_of(code))}. {escape(words)}</p>"
        '<p><a href="/docs">All of the API</a></p>',
    )


def _operation(method: str, path: str, described: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{escape(one.get('description', ''))}</td></tr>"
        for one in described["parameters"]
    )
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(one['description'])} {_links(one)}</td></tr>"
        for status, one in described["responses"].items()
    )
    parameters = f"<table><tr><th>Parameter</th><th>In</th><th>Meaning</th></tr>{rows}</table>" if rows else ""
    body = f"<p>Body: {_links(described['requestBody'])}</p>" if "requestBody" in described else ""
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(described['summary'])}.</p>{parameters}{body}"
        f"<table><tr><th>Status</th><th>Answer</th></tr>{answers}</table>"
    )


def _links(described: Mapping[str, Any]) -> str:
    """Links to the shapes that an answer or a body may have."""
    schemas = [content["schema"] for content in described.get("content", {}).values()]
    names = [
        one["$ref"].rpartition("/")[2] for schema in schemas for one in schema.get("oneOf", [schema]) if "$ref" in one
    ]
    return ", ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)


def _codes() -> str:
    rows = "".join(
        f'<tr><td><a href="/docs/errors/{code.value}"><code>{code.value}</code></a></td><td>{int(status_of(code))}</td>'
        f"<td>{escape(TITLES[code])}</td></tr>"
        for code in Code
    )
    return f"<table><tr><th>Code</th><th>Status</th><th>Meaning</th></tr>{rows}</table>"


def _page(title: str, body: str) -> web.Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})


ROUTES: Final = (
    Route(
        "GET",
        "/openapi.json",
        show_openapi,
        operation(
            "showOpenapi",
            "This document",
            {200: {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}},
            tag="documentation",
        ),
    ),
    Route(
        "GET",
        "/docs",
        show_docs,
        operation(
            "showDocs", "This document as a page", {200: answers_text("text/html", "A page.")}, tag="documentation"
        ),
    ),
    Route(
        "GET",
        "/docs/errors/{code}",
        show_error,
        operation(
            "showError",
            "What an error code means",
            {200: answers_text("text/html", "A page.")},
            tag="documentation",
            parameters=(in_path("code", "The code of a problem document."),),
            problems=(404,),
        ),
    ),
)
