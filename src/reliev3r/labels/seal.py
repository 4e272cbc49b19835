"""JSON files that know whether they are whole: a format version and a checksum inside, and one way to write them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reliev3r.errors import UserError
from reliev3r.files import atomic_path, read_json


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (with its "format") and the SHA-256 of itself, atomically; the same content, the same bytes."""
    text = _text(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def read_sealed(path: Path, form: str) -> dict[str, Any]:
    """What :func:`write_sealed` wrote, without the checksum.

    Raises:
        UserError: missing, damaged (a single byte is enough) or of another format version.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != form:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(f"{path}: of format {found}, not of format {form}; run `reliev3r label` again")
    content.pop("sha256", None)
    if path.read_text(encoding="utf8") != _text(content):
        raise UserError(f"{path}: damaged (its checksum does not fit); run `reliev3r label` again")
    return content


def _text(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1) + "\n"
