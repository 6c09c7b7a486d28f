#!/usr/bin/env python3
"""Writes tables.inc: what PyPI `tokenizers` thinks of every code point, found by asking it.

    python make_tables.py [--check]        needs tokenizers; --check compares instead of writing

Models are trained on what this library's regex engine and normalizer do. The two carry Unicode tables of their own, of
different versions, so no Unicode release says the same; every fact below is probed. What the scanner and the normalizer
take for granted (pretokenizer.cc, nfc.cc) is asserted here.
"""

import pathlib
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

OUTPUT = pathlib.Path(__file__).parent / "tables.inc"
PAGE_BITS = 7
ILL_FORMED = 0x110000  # the row of bytes that are no code point
CODE_POINTS = [c for c in range(ILL_FORMED) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)

nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str


def members(pattern):
    """The code points that `pattern` matches alone."""
    removed = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for begin in range(0, len(CODE_POINTS), 4096):
        part = CODE_POINTS[begin:begin + 4096]
        left = set()
        for _, (first, end) in removed.pre_tokenize_str("".join(map(chr, part))):
            left.update(part[first:end])
        found.update(c for c in part if c not in left)
    return found


def classes():
    letter, mark, number, space = (members(p) for p in (r"\p{L}", r"\p{M}", r"\p{N}", r"\s"))
    assert members(r"[\r\n]") == {10, 13} <= space
    assert members(r"[^\s\p{L}\p{M}\p{N}]") == set(CODE_POINTS) - letter - mark - number - space
    assert sum(map(len, (letter, mark, number, space))) == len(letter | mark | number | space), "classes overlap"
    names = {}
    for name, group in (("kLetter", letter), ("kMark", mark), ("kNumber", number), ("kSpace", space)):
        names.update((c, name) for c in group)
    names.update({10: "kNewline", 13: "kNewline"})
    return names


def check_contractions():
    """(?i:) folds more than ASCII: U+017F is an s. Nothing else may match."""
    for text in ("s", "t", "re", "ve", "m", "ll", "d"):
        pattern = f"(?i:'{text})"
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        for at, letter in enumerate(text):
            want = {ord(letter), ord(letter.upper())} | ({0x17F} if letter == "s" else set())
            got = set()
            for begin in range(0, len(CODE_POINTS), 4096):
                probe = "".join(f"'{text[:at]}{chr(c)}{text[at + 1:]}\0" for c in CODE_POINTS[begin:begin + 4096])
                got.update(ord(piece[1 + at]) for piece, _ in split.pre_tokenize_str(probe)
                           if len(piece) == 1 + len(text) and piece[0] == "'")
            assert got == want, (text, at, sorted(map(hex, got)))
        # A ligature that folds to several letters, whole or in part.
        for c in CODE_POINTS:
            if len(chr(c).casefold()) > 1:
                assert [p for p, _ in split.pre_tokenize_str(f"'{chr(c)}")] == [f"'{chr(c)}"] or \
                    chr(c).casefold() != text, hex(c)
        assert [p for p, _ in split.pre_tokenize_str("\u0149")] == ["\u0149"]


def combining_classes():
    """Which of two marks goes first depends only on the order of their classes, so classes are found by sorting: a mark
    moves before another when its class is lower and not 0."""
    def swaps(first, second):
        a, b = chr(first), chr(second)
        got = nfd("x" + a + b)
        assert got in ("x" + a + b, "x" + b + a), (hex(first), hex(second))
        return got != "x" + a + b

    # Non-starters: every one moves before U+0345 (class 240, the highest there is), or after U+0334 (class 1, the
    # lowest), and no starter does either.
    simple = [c for c in CODE_POINTS if nfd(chr(c)) == chr(c)]
    nonstarters = [c for c in simple if c == 0x345 or swaps(0x345, c) or swaps(c, 0x334)]
    representatives = []  # of the classes found so far, in order
    rank = {}
    for c in nonstarters:
        low, high = 0, len(representatives)
        while low < high:
            middle = (low + high) // 2
            if swaps(c, representatives[middle]):  # representative is lower
                low = middle + 1
            else:
                high = middle
        if low < len(representatives) and not swaps(representatives[low], c):
            rank[c] = representatives[low]
        else:
            representatives.insert(low, c)
            rank[c] = c
    order = {c: 1 + at for at, c in enumerate(representatives)}
    assert len(order) < 256
    return {c: order[rank[c]] for c in nonstarters}


def normalization():
    ccc = combining_classes()
    decompositions, compositions = {}, {}
    changed = {c for c in CODE_POINTS if nfc(chr(c)) != chr(c)}
    for c in CODE_POINTS:
        parts = nfd(chr(c))
        if c in HANGUL or parts == chr(c):
            continue
        decompositions[c] = [ord(p) for p in parts]
        if c not in changed:
            first = nfc(parts[:-1])
            assert len(first) == 1
            compositions[ord(first), ord(parts[-1])] = c
    # Hangul is arithmetic.
    for c in HANGUL:
        lead, vowel, tail = 0x1100 + (c - 0xAC00) // 588, 0x1161 + (c - 0xAC00) // 28 % 21, (c - 0xAC00) % 28
        assert nfd(chr(c)) == chr(lead) + chr(vowel) + (chr(0x11A7 + tail) if tail else "")
        assert nfc(nfd(chr(c))) == chr(c) == nfc(chr(c))
    seconds = {second for _, second in compositions}
    unstable = changed | seconds | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    # A stable starter shields what is before it: nothing of it reorders or composes backwards.
    for c in CODE_POINTS:
        first = decompositions.get(c, [c])[0]
        if c not in unstable and c not in ccc:
            assert first not in ccc and first not in unstable, hex(c)
    for c, parts in decompositions.items():
        if parts[0] in ccc:
            assert c in unstable, hex(c)
    assert not [c for c in CODE_POINTS if c < 0x300 and (c in unstable or c in ccc)]
    # Each second composes with its firsts and with nothing else.
    for second in sorted(seconds):
        tail = chr(second)
        got = nfc("".join(chr(c) + tail + "\0" for c in CODE_POINTS[1:])).split("\0")
        for c, text in zip(CODE_POINTS[1:], got):
            if (c, second) in compositions:
                assert text == chr(compositions[c, second])
            elif c not in changed and c not in decompositions and c not in ccc:
                assert text == chr(c) + tail, (hex(c), hex(second))
    return ccc, unstable, decompositions, compositions


def wrap(items, indent="    "):
    lines, line = [], indent[:-1]
    for item in items:
        if len(line) + len(item) + 2 > 120:
            lines.append(line)
            line = indent[:-1]
        line += f" {item},"
    return "\n".join(lines + [line])


def render():
    names = classes()
    check_contractions()
    ccc, unstable, decompositions, compositions = normalization()

    def properties(c):
        return names.get(c, "kOther"), ccc.get(c, 0), "false" if c in unstable else "true"

    palette = {properties(ILL_FORMED): 0}
    pages, page_of = {}, []
    for begin in range(0, ILL_FORMED + 1, 1 << PAGE_BITS):
        page = tuple(palette.setdefault(properties(c), len(palette)) for c in range(begin, begin + (1 << PAGE_BITS)))
        page_of.append(pages.setdefault(page, len(pages)))
    assert len(palette) <= 256 and len(pages) <= 256, (len(palette), len(pages))

    pool, rows = [], []
    for c in sorted(decompositions):
        rows.append(f"{{{c:#x}, {len(pool)}, {len(decompositions[c])}}}")
        pool += decompositions[c]
    assert len(pool) < 1 << 16
    return f"""// Made by make_tables.py from PyPI tokenizers {tokenizers.__version__}; do not edit. clang-format off
// {len(palette)} kinds of code point, {len(pages)} pages. Combining classes are numbered 1, 2, 3 ... in order: only their order counts.
const CharProperties kPalette[] = {{
{wrap(f"{{{name}, {combining}, {stable}}}" for name, combining, stable in palette)}
}};
const uint8_t kPageOf[] = {{
{wrap(map(str, page_of))}
}};
const uint8_t kPages[] = {{
{wrap(str(entry) for page in pages for entry in page)}
}};
constexpr Decomposition kDecompositions[] = {{
{wrap(rows)}
}};
constexpr char32_t kDecomposed[] = {{
{wrap(f"{c:#x}" for c in pool)}
}};
constexpr Composition kCompositions[] = {{
{wrap(f"{{{a:#x}, {b:#x}, {compositions[a, b]:#x}}}" for a, b in sorted(compositions))}
}};
"""


if __name__ == "__main__":
    text = render()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if OUTPUT.read_text() == text else f"{OUTPUT.name} is not what tokenizers {tokenizers.__version__} gives")
    OUTPUT.write_text(text)
    print(f"{OUTPUT}: {len(text)} bytes")
