"""Writes ``src/divvy/models.py`` from a coordinator's OpenAPI description.

    python tools/generate_models.py http://127.0.0.1:8080 > src/divvy/models.py

The description's words are left out, so that only a change of structure changes the file.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

HEAD = '''"""Bodies of the HTTP interface, generated from the coordinator's OpenAPI description: do not edit.

Made by ``tools/generate_models.py``; a test compares this file with the description of a running coordinator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired
'''

SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}

#: Names of a set that a coordinator of another release may have more of.
OPEN = {"JobKind": "str"}


def type_of(schema: dict[str, Any]) -> str:
    """The Python type that a schema describes."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " | ".join(dict.fromkeys(type_of(part) for part in schema[key]))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return type_of(schema["allOf"][0])
    if "enum" in schema:
        return f"Literal[{', '.join(json.dumps(value) for value in schema['enum'])}]"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(dict.fromkeys(type_of({**schema, "type": one}) for one in kind))
    if kind == "array":
        return f"list[{type_of(schema.get('items', {}))}]"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"dict[str, {type_of(inner) if isinstance(inner, dict) else 'Any'}]"
    return SCALARS.get(str(kind), "Any")


def model(name: str, schema: dict[str, Any]) -> str:
    """The definition of one named schema."""
    if name in OPEN:
        return f'{name}: TypeAlias = "{OPEN[name]}"\n'
    if "properties" not in schema:
        return f'{name}: TypeAlias = "{type_of(schema)}"\n' if '"' not in type_of(schema) else alias(name, schema)
    required = set(schema.get("required", ()))
    lines = [f"class {name}(TypedDict):"]
    for field, inner in sorted(schema["properties"].items()):
        kind = type_of(inner)
        lines.append(f"    {field}: {kind if field in required else f'NotRequired[{kind}]'}")
    return "\n".join(lines) + "\n"


def alias(name: str, schema: dict[str, Any]) -> str:
    """A name for a type whose text has quotes, one value a line."""
    values = "".join(f"    {json.dumps(value)},\n" for value in schema["enum"])
    return f"{name}: TypeAlias = Literal[\n{values}]\n"


def generate(description: dict[str, Any]) -> str:
    """The whole module."""
    schemas = description["components"]["schemas"]
    plain = {name: schema for name, schema in schemas.items() if "properties" in schema}
    aliases = {name: schema for name, schema in schemas.items() if "properties" not in schema}
    parts = [HEAD]
    parts += [model(name, aliases[name]) for name in sorted(aliases)]
    parts += ["\n" + model(name, plain[name]) for name in sorted(plain)]
    return "\n".join(parts)


def main() -> None:
    """Prints the module for the coordinator at the URL that is given."""
    with urllib.request.urlopen(sys.argv[1].rstrip("/") + "/openapi.json", timeout=10) as answer:
        sys.stdout.write(generate(json.load(answer)))


if __name__ == "__main__":
    main()
