"""Pages rendered on the server: no script, no network, nothing that a strict content policy would have to allow."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from alphapack.domain.readings import SymbolInfo

STYLE = """
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #5b6472; --mark: #0b63ce; }
@media (prefers-color-scheme: dark) { :root { --line: #363c47; --soft: #9aa4b2; --mark: #7db4ff; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
code { font-family: ui-monospace, monospace; font-size: .92em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
a { color: var(--mark); } small, th { color: var(--soft); font-weight: normal; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def index_page(symbols: Iterable[SymbolInfo], status: str) -> str:
    """Render the start page: what runs here and where to look."""
    rows = [
        (f"<code>{escape(name)}</code>", escape(state), f'<a href="/api/microstructure/{_in_path(name)}">features</a>')
        for name, state in ((f"{info.venue}:{info.symbol}", info.state) for info in symbols)
    ]
    return _page(
        "alphapack",
        f"<p>Market-data engine, {escape(status)}.</p>"
        '<p><a href="/docs">API documentation</a>, <a href="/api/health">health</a>, <a href="/metrics">metrics</a></p>'
        "<h2>Symbols</h2>" + (_table(("symbol", "book", ""), rows) if rows else "<p>None is known yet.</p>"),
    )


def docs_page(document: Mapping[str, Any]) -> str:
    """Render an OpenAPI document: every route with its parameters and answers, then every schema."""
    info = document["info"]
    parts = [f"<p>{escape(info['description'])}</p>", '<p>Machine-readable: <a href="/openapi.json">openapi.json</a></p>']
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parts.append(f"<h2 id='{escape(operation['operationId'])}'><code>{escape(method.upper())} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])} <small>{escape(operation['operationId'])}</small></p>")
            if parameters := operation.get("parameters"):
                parts.append(_table(("parameter", "in", "type", "meaning"), map(_parameter, parameters)))
            if body := operation.get("requestBody"):
                parts.append(_table(("body", "meaning"), ((_media(body["content"]), escape(body["description"])),)))
            answers = [_answer(status, response) for status, response in operation["responses"].items()]
            parts.append(_table(("status", "answer", "type"), answers))
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h2 id='{escape(name)}'>{escape(name)}</h2>")
        fields = schema.get("properties", {}).items()
        parts.append(_table(("field", "type"), ((f"<code>{escape(field)}</code>", _type(of)) for field, of in fields)))
    return _page(f"{info['title']} API", "".join(parts))


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    schema = parameter["schema"]
    limits = ", ".join(
        f"{word} {schema[key] if isinstance(schema[key], str) else format(schema[key], '.16g')}"
        for key, word in (("default", "default"), ("minimum", "from"), ("maximum", "to"))
        if key in schema
    )
    kind = _type(schema) + (f" <small>({escape(limits)})</small>" if limits else "")
    return f"<code>{escape(parameter['name'])}</code>", escape(parameter["in"]), kind, escape(parameter.get("description") or "")


def _answer(status: str, response: Mapping[str, Any]) -> tuple[str, str, str]:
    return escape(status), escape(response["description"]), _media(response.get("content") or {})


def _media(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{_type(body.get('schema', {}))} <small>{escape(media)}</small>" for media, body in content.items())


def _type(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_type(option) for option in options)
    kind = schema.get("type", "any")
    if kind == "array":
        items = schema.get("items") or {"oneOf": schema.get("prefixItems", [])}
        return f"list of ({_type(items)})"
    if isinstance(kind, list):
        return escape(" or ".join(kind))
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"object of ({_type(values)})"
    return escape(str(kind))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _in_path(symbol: str) -> str:
    return escape(quote(symbol, safe=":"))


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )
