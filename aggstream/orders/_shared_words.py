"""The few words that come again with each order, kept once and not once for each order."""

from __future__ import annotations

from typing import TypeVar

# Bounded, because a service may say any number of words. And not `sys.intern`, which in some versions of Python
# never forgets.
_WORDS: dict[str, str] = {}
_TEXTS: dict[frozenset[str], frozenset[str]] = {}
_MOST_WORDS = 1000
_LONGEST_WORD = 64
Word = TypeVar("Word", str, "str | None")


def shared_word(word: Word) -> Word:
    """Return the same object for equal words."""
    known = None if word is None else _WORDS.get(word)
    if known is not None:
        return known
    if word is not None and len(word) <= _LONGEST_WORD and len(_WORDS) < _MOST_WORDS:
        _WORDS[word] = word
    return word


def shared_words(texts: frozenset[str]) -> frozenset[str]:
    """Return the same object for equal sets of words, because nearly all orders end by one of a few words."""
    known = _TEXTS.get(texts)
    if known is None and len(_TEXTS) < _MOST_WORDS and all(len(text) <= _LONGEST_WORD for text in texts):
        _TEXTS[texts] = texts
    return texts if known is None else known
