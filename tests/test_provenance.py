"""What made a thing: its fingerprint, and what is said to have changed."""

import json

from ddpm_kedro.provenance import Provenance, differences, fingerprint

MADE_BY = Provenance({"training": {"seed": 0, "batch_size": 8}, "model": {"width": 4}}, {"images": "a"})


def test_a_fingerprint_follows_values_and_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": [2.5], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint("x")) == 12


def test_differences_are_named_one_by_one() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 → 3", "d: nothing → 4"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_equal_makers_have_equal_names_also_from_a_file() -> None:
    again = Provenance(**json.loads(json.dumps(MADE_BY.as_dict())))
    assert again == MADE_BY
    assert again.fingerprint == MADE_BY.fingerprint
    others = [Provenance(MADE_BY.parameters, {"images": "b"}), Provenance({"model": {"width": 4}}, MADE_BY.inputs)]
    assert len({made_by.fingerprint for made_by in (MADE_BY, *others)}) == 3


def test_what_changed_is_named_and_what_is_not_given_is_not_compared() -> None:
    now = {"training": {"seed": 1, "batch_size": 8}, "sampling": {"seed": 5}}
    assert MADE_BY.changes(now, {"images": "b", "others": "c"}) == ["training.seed: 0 → 1", "images: a → b"]
    assert MADE_BY.changes({}, {}) == []
