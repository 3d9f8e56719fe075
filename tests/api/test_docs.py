import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from fake_host import FakeHost, get

from alphapack.api.docs import index_page
from alphapack.api.routes import openapi_document
from alphapack.api.server import ApiSettings, create_app

HOSTILE = [
    "sim:<script>alert(1)</script>",
    'sim:"><img src=x onerror=alert(1)>',
    "sim:'onmouseover='alert(1)",
    "sim:</td></table><iframe>",
    "sim:javascript:alert(1)",
    "sim:&lt;b&gt;",
    "sim:\u202egnp.exe",
    "sim:💥",
]


class Seen(HTMLParser):
    """Collects tags, attributes and text, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_work_offline_and_without_script(path):
    answer = get(create_app(FakeHost(), ApiSettings()), path)
    page = answer.body.decode()
    seen = Seen(page)
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "form"}
    links = [value for name, value in seen.attributes if name in ("href", "src")]
    assert links and all(re.match(r"[#/](?!/)", value) for value in links)
    policy = answer.headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert (answer.headers["x-frame-options"], answer.headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert "prefers-color-scheme: dark" in style


def test_the_documentation_shows_every_operation_parameter_and_field():
    seen = Seen(get(create_app(FakeHost(), ApiSettings()), "/docs").body.decode())
    document = json.loads(openapi_document())
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert f"{method.upper()} {path}" in seen.text and operation["summary"] in seen.text
            assert all(parameter["name"] in seen.text for parameter in operation.get("parameters", []))
            assert all(media in seen.text for media in operation.get("requestBody", {}).get("content", {}))
    for name, schema in document["components"]["schemas"].items():
        assert ("id", name) in seen.attributes
        assert all(field in seen.text for field in schema["properties"])
    targets = {value for name, value in seen.attributes if name == "id"}
    assert {value[1:] for name, value in seen.attributes if name == "href" and value.startswith("#")} <= targets


@pytest.mark.parametrize("symbol", HOSTILE)
def test_symbols_are_text_and_nothing_else(symbol):
    seen = Seen(get(create_app(FakeHost(extra_symbols=(symbol,)), ApiSettings()), "/").body.decode())
    assert symbol in seen.text
    assert not seen.tags & {"script", "img", "iframe", "b"}
    assert not any(name.startswith("on") for name, _ in seen.attributes)


def test_an_empty_start_page_says_so():
    assert "None is known yet." in index_page([], "starting")
