"""Text in a box: broken into lines, and shrunk until it fits. Pure: how wide a text is, is told by whoever asks."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator

_ELLIPSIS = "…"
_WORDS = re.compile(r"\S+\s*|\s+")


def lay_out(
    text: str,
    width: float,
    height: float,
    size: float,
    smallest: float,
    measure: Callable[[str, float], float],
    line: float,
) -> tuple[list[str], float, bool]:
    """(lines, size, whether all of it fits) of text in a box, in the largest size from `size` down to `smallest`.

    `measure` gives a text's width in a size; `line` is how high a line is, in sizes.
    """
    if not text:
        return [], size, True
    while True:
        room = max(0, int(height / (line * size)))
        fit = functools.partial(_at, measure, size)
        lines = list(itertools.islice(_wrapped(text, width, fit), room + 1))
        if len(lines) <= room and all(fit(each) <= width for each in lines):
            return lines, size, True
        if size <= smallest:
            break
        # towards the size at which all of the text would fill the box
        part = sum(map(len, lines[:room])) / len(text)
        size = max(smallest, size * min(0.9, 1.05 * math.sqrt(part)))
    room = max(room, 1)
    cut = len(lines) > room
    lines = lines[:room]
    if cut:
        lines[-1] = _shortened(lines[-1], width, fit)
    return lines, size, not cut


def _at(measure: Callable[[str, float], float], size: float, text: str) -> float:
    return measure(text, size)


def _wrapped(text: str, width: float, measure: Callable[[str], float]) -> Iterator[str]:
    """The text in lines: broken between words, within one only where it alone is too long."""
    for paragraph in text.split("\n"):
        line, taken = "", 0.0
        for word in _WORDS.findall(paragraph):
            length = measure(word)
            if line and taken + measure(word.rstrip()) > width:
                yield line.rstrip()
                line, taken = "", 0.0
            while not line and len(word) > 1 and measure(word.rstrip()) > width:
                fits = _fitting(word, width, measure)
                yield word[:fits]
                word = word[fits:]
                length = measure(word)
            line += word
            taken += length
        yield line.rstrip()


def _fitting(word: str, width: float, measure: Callable[[str], float]) -> int:
    """How many of its first characters fit; at least one."""
    low, high = 1, 2
    while high < len(word) and measure(word[:high]) <= width:
        low, high = high, 2 * high
    high = min(high, len(word))
    while low < high:
        middle = (low + high + 1) // 2
        if measure(word[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def _shortened(line: str, width: float, measure: Callable[[str], float]) -> str:
    while line and measure(line.rstrip() + _ELLIPSIS) > width:
        line = line[:-1]
    return line.rstrip() + _ELLIPSIS
