"""Provenance of outputs: parameters, inputs, fingerprints and changes; and secrets in URLs."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

_URL = re.compile(r"(?:[\w+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_IN_TEXT = re.compile(r"\b(?:[\w+.-]+::)*[a-z][a-z0-9+.-]+:/+[^\s'\"<>]+", re.IGNORECASE)
"""Also with one slash: a path turns two slashes into one."""
_WITHIN = re.compile(rf"{_URL.pattern}[^\s'\"<>]+", re.IGNORECASE)
_RELATIVE = re.compile(r"(/[^\s?'\"]*)\?[^\s'\"]*=[^\s'\"]*")
"""A URL in the errors of HTTP libraries: ``/file.zip?token=…``."""
_USER = re.compile(r"(:/+)(?:[^/?#]*@|[^/?#@:]*:(?!\d*(?:[/?#]|$)).*@)")
"""User and password, also if the password has a slash that should be written as ``%2F``."""
_REDACTED = re.compile(r"[^?#]*#(?P<key>[0-9a-f]{12})")
_SECRET = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid"
    r"|((access|auth|api|security|session|sas)[-_]?)?(token|key|secret|sig|signature|password|passwd|pwd|auth"
    r"|authorization|credentials?|expires|expiry|exp)",
    re.IGNORECASE,
)
"""Query parameters that are secrets or expire."""
_OF_A_SIGNATURE = {"st", "se", "skt", "ske", "policy", "key-pair-id"}
"""Query parameters that expire in signed links to Azure and CloudFront; elsewhere they may mean anything."""


def fingerprint(*parts: Any) -> str:
    """Return a short name for plain data; equal data have equal names."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and the values of nested parameters."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed between two parameter trees, one line per value."""
    old, new = dict(flatten(earlier)), dict(flatten(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}" for name in names]


def redact(value: Any) -> Any:
    """Remove user, password, query and fragment from every URL in plain data.

    A URL that loses any of them gets its key (:func:`url_key`) as fragment: it still identifies the same download.
    """
    match value:
        case str():
            return _redact_url(value) if _URL.match(value) else _WITHIN.sub(lambda found: _redact_url(found[0]), value)
        case Mapping():
            return {name: redact(each) for name, each in value.items()}
        case list() | tuple():
            return type(value)(map(redact, value))
    return value


def redact_text(text: str) -> str:
    """Remove user, password and query from every URL in a message.

    >>> redact_text("https://me:pw@host/a.zip?token=1 is not there")
    'https://host/a.zip?… is not there'
    """

    def shown(url: str) -> str:
        if is_redacted(url) or not re.search(r"[?]|#.*=", url):  # a plain fragment is an anchor on a page
            return _without_user(url)
        return f"{_bare(url)}?…"

    return _RELATIVE.sub(r"\1?…", _IN_TEXT.sub(lambda found: shown(found[0]), text))


def is_redacted(url: str) -> bool:
    """Return whether :func:`redact` has removed something from this URL, so that it cannot be downloaded."""
    return _REDACTED.fullmatch(url) is not None and _USER.search(url) is None


def url_key(url: str) -> str:
    """Return a short name for the file at a URL, the same for every user and every expiry date of the link."""
    if (found := _REDACTED.fullmatch(url)) and is_redacted(url):
        return found["key"]
    rest, hash_mark, fragment = _without_user(url).partition("#")
    address, _, query = rest.partition("?")
    parts = [(unquote(part.partition("=")[0]).lower(), part) for part in query.split("&") if part]
    dropped = _OF_A_SIGNATURE if {"sig", "signature"} & {name for name, _ in parts} else set()
    kept = [part for name, part in parts if name not in dropped and not _SECRET.fullmatch(name)]
    return fingerprint(f"{address}{'?' if kept else ''}{'&'.join(kept)}{hash_mark}{fragment}")


def set_name(path: str) -> str:
    """Return a readable name for the images at a path or URL: its last part."""
    bare = _bare(path) if _URL.match(path) else path
    return bare.rstrip("/").rpartition("/")[2] or bare


def _redact_url(url: str) -> str:
    return url if is_redacted(url) or _bare(url) == url else f"{_bare(url)}#{url_key(url)}"


def _bare(url: str) -> str:
    return re.split("[?#]", _without_user(url), maxsplit=1)[0]


def _without_user(url: str) -> str:
    return "::".join(_USER.sub(r"\1", part) for part in url.split("::"))


@dataclass(frozen=True)
class Provenance:
    """The parameters and inputs of an image store, a model or samples; stored on disk beside them.

    Attributes:
        parameters: parameters that affect the output, by group, as plain data.
        inputs: fingerprint of each catalog entry that the output was made from.
    """

    parameters: dict[str, Any]
    inputs: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Return a short name; equal parameters and inputs have equal names."""
        return fingerprint(self.parameters, *self.inputs.values())

    def changes(self, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
        """Return how these parameters and inputs differ, one line per value; missing ones are not compared."""
        now = dict(flatten(parameters)) | dict(inputs)
        then = dict(flatten(self.parameters)) | self.inputs
        return differences(then, {name: now.get(name, value) for name, value in then.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for a file."""
        return {"parameters": self.parameters, "inputs": self.inputs}
