"""Provenance: fingerprints, reported changes, and secrets in URLs."""

import json

import pytest

from ddpm_kedro.provenance import (
    Provenance,
    differences,
    fingerprint,
    is_redacted,
    redact,
    redact_text,
    set_name,
    url_key,
)

MADE_BY = Provenance({"training": {"seed": 0, "batch_size": 8}, "model": {"width": 4}}, {"images": "a"})


def test_a_fingerprint_follows_values_and_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": [2.5], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint("x")) == 12


def test_differences_are_listed_one_by_one() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 → 3", "d: nothing → 4"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_equal_provenance_has_equal_fingerprints_also_from_a_file() -> None:
    again = Provenance(**json.loads(json.dumps(MADE_BY.as_dict())))
    assert again == MADE_BY
    assert again.fingerprint == MADE_BY.fingerprint
    others = [Provenance(MADE_BY.parameters, {"images": "b"}), Provenance({"model": {"width": 4}}, MADE_BY.inputs)]
    assert len({made_by.fingerprint for made_by in (MADE_BY, *others)}) == 3


def test_changes_list_only_given_values() -> None:
    now = {"training": {"seed": 1, "batch_size": 8}, "sampling": {"seed": 5}}
    assert MADE_BY.changes(now, {"images": "b", "others": "c"}) == ["training.seed: 0 → 1", "images: a → b"]
    assert MADE_BY.changes({}, {}) == []


URLS = {
    "https://host/a.zip": "https://host/a.zip",
    "https://host:8080/@a/b.zip": "https://host:8080/@a/b.zip",
    "https://me:pw@host/a.zip": "https://host/a.zip#",
    "https://me:p/w@host/a.zip": "https://host/a.zip#",
    "https://me:p?w@host/a.zip": "https://host/a.zip#",
    "https://host/a.zip?token=pw": "https://host/a.zip#",
    "https://host/a.zip#access_token=pw": "https://host/a.zip#",
    "s3://key:pw@bucket/a b.zip?x=pw pw": "s3://bucket/a b.zip#",
    "zip://a.png::https://me:pw@host/a.zip?token=pw": "zip://a.png::https://host/a.zip#",
    "/pictures/what?": "/pictures/what?",
}


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_a_url_is_stored_without_user_password_and_query_but_names_the_same_download(url: str, expected: str) -> None:
    parameters = {"dataset": {"path": url, "classes": None}, "images": {"background": [255, 0, 0]}}
    stored = redact(parameters)
    assert stored["images"] == parameters["images"]
    path = stored["dataset"]["path"]
    assert path.startswith(expected)
    assert len(path) == len(expected) + 12 * expected.endswith("#")
    assert is_redacted(path) == expected.endswith("#")
    assert redact(path) == path
    assert url_key(path) == url_key(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@host/a.zip?token=pw is not there", "https://host/a.zip?… is not there"),
        ("no such folder: htps:/me:pw@host/a.zip", "no such folder: htps:/host/a.zip"),
        (
            "Max retries exceeded with url: /a.zip?token=pw (many)",
            "Max retries exceeded with url: /a.zip?… (many)",
        ),
        ("kedro run --params dataset.path=s3://me:pw@b/c?pw", "kedro run --params dataset.path=s3://b/c?…"),
        ("See https://docs/page#place.", "See https://docs/page#place."),
        ("Did you mean 'a'? b=c", "Did you mean 'a'? b=c"),
    ],
)
def test_a_message_has_no_user_password_or_query(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


def test_the_key_of_a_url_ignores_secrets_and_expiry() -> None:
    key = url_key("https://host/a.zip?id=1")
    secrets = ("token", "access_token", "sig", "Signature", "X-Amz-Date", "X-Goog-Signature", "key", "Expires")
    for secret in secrets:
        assert url_key(f"https://me:pw@host/a.zip?{secret}=pw&id=1") == key, secret
        assert url_key(f"https://host/a.zip?id=1&{secret}=2") == key, secret
    assert url_key("https://host/a.zip?id=1&se=2026&sig=pw") == key
    others = (
        "id=2",
        "id=1&se=2",
        "id=1&keyword=a",
        "id=1&version=2",
        "id=1&response-content-type=a",
        "id=1&sort_key=a",
    )
    assert len({key, *(url_key(f"https://host/a.zip?{other}") for other in others)}) == 1 + len(others)


def test_a_dataset_is_named_after_the_last_part_of_its_path() -> None:
    names = {"/a/pictures": "pictures", "pictures/": "pictures", "me/mnist": "mnist", "/a/b#c?d": "b#c?d"}
    urls = {"https://me:pw@host/a.zip?x=/y": "a.zip", "s3://bucket": "bucket", "/": "/"}
    assert {path: set_name(path) for path in names | urls} == names | urls
