"""Text of figures: how wide it is, and what is left of it where there is no room."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags

_EM = 100  # points at which a letter is measured
# No letters: control characters, lone surrogates, and what XML cannot hold.
_NO_TEXT = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
SIZE = 9.0  # points
_HINTED = 1.04  # letters on whole pixels are a little wider than designed


def clean(text: object) -> str:
    """Text on one line, without characters that cannot be drawn."""
    return _NO_TEXT.sub(" ", str(text)).strip()


@lru_cache(maxsize=4096)
def _advance(letter: str, weight: str) -> float:
    """Width of a letter in units of the font size; of one that the font lacks, that of a box."""
    font = get_font(findfont(FontProperties(weight=weight)))
    if not font.get_char_index(ord(letter)):
        return 1.25
    font.set_size(_EM, 72)
    return font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / _EM


def width(text: str, size: float = SIZE, weight: str = "normal") -> float:
    """Inches that a line of text takes."""
    return _HINTED * sum(_advance(c, weight) for c in text) * size / 72


def _longest(most: int, inches: float, size: float, shape: Callable[[int], str]) -> str:
    """`shape` of the largest number of letters, up to `most`, that fits into so many inches."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(shape(middle), size) <= inches else (low, middle - 1)
    return shape(low)


def shortened(text: str, inches: float, size: float = SIZE) -> str:
    """Text that fits; of longer text the middle is left out."""
    if width(text, size) <= inches:
        return text
    return _longest(
        len(text) - 1,
        inches,
        size,
        lambda n: f"{text[: (n + 1) // 2]}…{text[len(text) - n // 2 :]}",
    )


def _shortened_at(text: str, start: int, inches: float, size: float) -> str:
    """The text's beginning and what follows `start`, as much as fits."""

    def shape(n: int) -> str:
        head = min(n // 4, start)
        rest = text[start : start + n - head]
        return f"{text[:head]}…{rest}" + "…" * (start + n - head < len(text))

    return _longest(len(text) - 1, inches, size, shape)


def fitted(names: Iterable[str], inches: float, size: float = SIZE) -> dict[str, str]:
    """Each name as it fits into so many inches; different names stay different."""
    whole = {n: clean(n) for n in names}
    found = {n: shortened(text, inches, size) for n, text in whole.items()}
    for alike in _alike(found):
        start = _differ_at([whole[n] for n in alike])
        found |= {n: _shortened_at(whole[n], start, inches, size) for n in alike}
    taken = set(found.values())
    for alike in _alike(found):
        for i, n in enumerate(alike, 1):
            number = f" ({i})"
            short = shortened(whole[n], max(inches - width(number, size), 0.3), size) + number
            while short in taken:
                short += "'"
            taken.add(short)
            found[n] = short
    return found


def _differ_at(texts: Sequence[str]) -> int:
    """The first place at which these texts are not all the same."""
    for i, letters in enumerate(zip(*texts, strict=False)):
        if len(set(letters)) > 1:
            return i
    return min(map(len, texts))


def _alike(shown: dict[str, str]) -> list[list[str]]:
    """Names that are shown alike."""
    by_text = defaultdict(list)
    for name, text in shown.items():
        by_text[text].append(name)
    return [names for names in by_text.values() if len(names) > 1]


def lines(text: str, inches: float, size: float = SIZE, weight: str = "normal") -> list[str]:
    """The text broken into lines, between words where one fits into a line."""
    found, line = [], ""
    for word in clean(text).split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined, size, weight) <= inches:
            line = joined
            continue
        if line:
            found.append(line)
        while width(word, size, weight) > inches and len(word) > 1:
            n = next(n for n in range(len(word), 0, -1) if n == 1 or _fits(word[:n], inches, size))
            found.append(word[:n])
            word = word[n:]
        line = word
    return [*found, line]


def _fits(text: str, inches: float, size: float) -> bool:
    return width(text, size) <= inches


def heading(parts: Sequence[str], inches: float, size: float = SIZE, most: int = 3) -> str:
    """Parts joined by commas over at most `most` lines; long parts lose their middle."""
    text = ", ".join(clean(p) for p in parts)
    if len(lines(text, inches, size)) > most:
        room = most * inches * 0.8 / max(len(parts), 1)
        text = ", ".join(shortened(clean(p), max(room, 0.5), size) for p in parts)
    broken = lines(text, inches, size)
    if len(broken) > most:
        broken = [*broken[: most - 1], shortened(" ".join(broken[most - 1 :]), inches, size)]
    return "\n".join(broken)
