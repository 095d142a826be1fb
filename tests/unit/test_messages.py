"""The demo's texts: as many as promised, each its own."""

import csv
import re
from collections import Counter
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import combinations

import pytest

LABELS = {"account_access", "billing", "cancellation", "delivery", "returns", "technical_problem"}


@pytest.fixture(scope="module")
def messages() -> list[tuple[str, str]]:
    text = (files("graftwork") / "packaged" / "messages.csv").read_text(encoding="utf-8")
    header, *lines = csv.reader(text.splitlines())
    assert header == ["text", "label"]
    return [(text, label) for text, label in lines]


def test_there_are_forty_messages_in_each_of_six_classes(messages: list[tuple[str, str]]) -> None:
    assert Counter(label for _, label in messages) == dict.fromkeys(LABELS, 40)


def test_no_two_messages_are_alike(messages: list[tuple[str, str]]) -> None:
    plain = [" ".join(re.findall(r"\w+", text.lower())) for text, _ in messages]
    assert len(set(plain)) == len(plain)
    words = [set(text.split()) for text in plain]
    for a, b in combinations(range(len(plain)), 2):
        shared = len(words[a] & words[b]) / len(words[a] | words[b])
        assert shared < 0.5, (plain[a], plain[b])
        if shared > 0.25:
            assert SequenceMatcher(None, plain[a], plain[b]).ratio() < 0.8, (plain[a], plain[b])


def test_messages_are_short_texts_without_addresses_or_numbers_of_people(
    messages: list[tuple[str, str]],
) -> None:
    for text, _ in messages:
        assert text == text.strip() and 15 <= len(text) <= 200, text
        assert not re.search(r"@|https?:|\d{6,}|\+\d", text), text


def test_lengths_vary(messages: list[tuple[str, str]]) -> None:
    lengths = sorted(len(text) for text, _ in messages)
    assert lengths[24] < 55 and lengths[-24] > 85
