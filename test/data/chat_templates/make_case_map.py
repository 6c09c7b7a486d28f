"""Writes runtime/text/jinja/case_map.inc: upper and lower case above ASCII, as rows of code points with one distance.

    python make_case_map.py        Python 3.11 has Unicode 14
"""

import bisect
import pathlib
import unicodedata

OUTPUT = pathlib.Path(__file__).parents[3] / "runtime/text/jinja/case_map.inc"
CODE_POINTS = [c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]


def rows_of(mapping):
    rows = []  # first, last, step, delta
    for c in CODE_POINTS:
        mapped = mapping(chr(c))
        if mapped == chr(c) or len(mapped) != 1:
            continue
        delta = ord(mapped) - c
        row = rows[-1] if rows else [0, 0, 0, 0]
        if row[3] == delta and (row[1] + row[2] == c if row[2] else c - row[1] in (1, 2)):
            row[2] = row[2] or c - row[1]
            row[1] = c
        else:
            rows.append([c, c, 0, delta])
    return [(first, last, step or 1, delta) for first, last, step, delta in rows]


def check(rows, mapping):
    """Finds every mapping again the way the reader does."""
    firsts = [row[0] for row in rows]
    for c in CODE_POINTS:
        mapped, at = mapping(chr(c)), bisect.bisect_right(firsts, c)
        got = next((c + delta for first, last, step, delta in rows[max(0, at - 1):at]
                    if c <= last and (c - first) % step == 0), c)
        assert got == (ord(mapped) if len(mapped) == 1 else c), hex(c)


lines = [
    f"// Simple case mappings above ASCII of Unicode {unicodedata.unidata_version}: first, last, step, delta. From"
    " Python's str by",
    "// test/data/chat_templates/make_case_map.py. clang-format off",
]
for name, mapping in (("UPPER", str.upper), ("LOWER", str.lower)):
    rows = rows_of(mapping)
    check(rows, mapping)
    line = ""
    for row in rows:
        item = "%s(0x%X, 0x%X, %d, %d)" % (name, *row)
        if len(line) + len(item) >= 120:
            lines.append(line)
            line = ""
        line += (" " if line else "") + item
    lines.append(line)
OUTPUT.write_text("\n".join(lines) + "\n")
