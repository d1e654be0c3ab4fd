"""Write docs/rest.md from the OpenAPI of the web application.

`--check` writes nothing and fails where the file is not what the application gives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from holdfast.web.app import application
from holdfast.web.dialect import Dialect
from holdfast.web.intake import Intake

PAGE = Path(__file__).with_name("rest.md")
_HEAD = """# REST

<!-- Written by docs/reference.py from the application; do not edit. -->

The coordinator answers on its port (`holdfast up`, `holdfast coordinator`: 7700) and on the Unix
socket in its state directory. `GET /v1/openapi.json` is the machine-readable form of this page.

Errors are problems of RFC 9457 with a stable `code`. Unknown fields are refused, with the nearest
known name. Bodies may be JSON or MessagePack (the media type application/msgpack), and answers are
MessagePack where `Accept` asks for it. A body has at most 64 MiB. 429 and 503 say in `Retry-After`
when to come again; nothing was kept then, unless the `code` is `in_doubt`: then send the same `id`
or `key` again.

```sh
TASK='{"function": "operator:add", "args": [1, 2], "key": "sum"}'
curl -s localhost:7700/v1/tasks -H 'content-type: application/json' -d "$TASK"
curl -s 'localhost:7700/v1/tasks/ID/result?wait=30'
```

`GET /healthz` answers while the process lives, `GET /readyz` with 200 while new tasks are kept and
503 with the reason while they are not.
"""


def document() -> dict[str, Any]:
    """Return the OpenAPI of the application; no coordinator is needed for it."""
    nobody = cast("Any", None)
    intake = Intake(nobody, nobody, nobody, clock=nobody, mint=nobody)
    return application(intake, Dialect()).openapi()


def page() -> str:
    """Return the page."""
    told = document()
    groups: dict[str, list[str]] = {}
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            text = "\n".join(_operation(method.upper(), path, operation))
            groups.setdefault(operation["tags"][0], []).append(text)
    parts = [_HEAD]
    for group in sorted(groups):
        parts.append(f"## {group.capitalize()}\n")
        parts += groups[group]
    parts.append("## What the bodies hold\n")
    parts += [
        "\n".join(_schema(name, schema))
        for name, schema in sorted(told["components"]["schemas"].items())
        if "properties" in schema and not name.startswith(("HTTPValidation", "Validation"))
    ]
    return "\n".join(parts).rstrip() + "\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield f"{operation['description']}\n"
    fields = [each for each in operation.get("parameters", ()) if each["in"] != "path"]
    if fields:
        yield "| parameter | in | meaning |\n| --- | --- | --- |"
        for each in fields:
            meaning = each.get("description", each["schema"].get("description", ""))
            yield f"| `{each['name']}` | {each['in']} | {_cell(meaning)} |"
        yield ""
    body = operation.get("requestBody")
    if body:
        yield f"Body: {_link(body['content']['application/json']['schema'])}.\n"
    answers = []
    for status, answer in sorted(operation["responses"].items()):
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        link = f" {_link(schema)}" if "$ref" in schema and not status.startswith(("4", "5")) else ""
        answers.append(f"{status}{link}")
    yield f"Answers: {', '.join(answers)}.\n"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{schema.get('description', '')}\n"
    yield "| field | type | |\n| --- | --- | --- |"
    required = schema.get("required", ())
    for field, told in schema["properties"].items():
        needed = "required. " if field in required else ""
        yield f"| `{field}` | {_type(told)} | {_cell(needed + told.get('description', ''))} |"
    yield ""


def _type(told: dict[str, Any]) -> str:
    if "$ref" in told:
        return _link(told)
    if "anyOf" in told:
        return " or ".join(_type(each) for each in told["anyOf"])
    if "enum" in told:
        return ", ".join(f"`{word}`" for word in told["enum"])
    if told.get("type") == "array":
        return f"array of {_type(told['items'])}"
    return str(told.get("type", "any"))


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return f"[{name}](#{name.lower()})" if name else _type(schema)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it with `--check`; return the exit code."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the application gives: python docs/reference.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
