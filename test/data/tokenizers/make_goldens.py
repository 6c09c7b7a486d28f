#!/usr/bin/env python3
"""Writes what PyPI `tokenizers` makes of 10,000 lines (qwen3/goldens.bin) and of every code point (unicode_goldens.txt),
and a small tokenizer full of corner cases with 500 lines (toy/).

    python make_goldens.py                 needs tokenizers; the seeds are fixed

goldens.bin: records one behind the other, all integers u32 little-endian unless said.
    lines:   count; each: bytes of text, text, then three encodings: with Qwen3's pattern, with Qwen3.5's, and with Qwen3's
             while special tokens are not recognised. An encoding is a byte 1, pieces, tokens of each piece (u8), ids (3
             bytes each); or a byte 0 when it is the same as the first.
    decodes: count; each: ids, ids (3 bytes each), then the text with and without special tokens (bytes, text).
unicode_goldens.txt: a line for 1,024 code points, CRC-32 of their NFC and of their pieces under each pattern, in the
    contexts of block_text().
"""

import json
import pathlib
import random
import struct
import zlib

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

HERE = pathlib.Path(__file__).parent
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
LINES, DECODES, TOY_LINES, BLOCK = 10_000, 1_000, 500, 1024


def load(folder, regex=None):
    source = json.loads((HERE / folder / "tokenizer.json").read_text())
    if regex:
        source["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = regex
    return tokenizers.Tokenizer.from_str(json.dumps(source)), source


def scalar(first, last):
    while True:
        c = random.randint(first, last)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def among(items, low, high):
    return "".join(random.choice(items) for _ in range(random.randint(low, high)))


def categories():
    """Code points by what the library's regex calls them."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    found = {}
    for name in ("L", "M", "N", "P", "S", "Z"):
        keep = pre_tokenizers.Split(Regex(rf"[^\p{{{name}}}]+"), "removed")
        found[name] = [c for piece, _ in keep.pre_tokenize_str("".join(every)) for c in piece]
    assigned = sorted(c for group in found.values() for c in group)
    blocks = {}
    for c in assigned:
        blocks.setdefault(ord(c) >> 8, []).append(c)
    return found, list(blocks.values())


def byte_alphabet():
    """GPT-2's character of each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def generators(source):
    found, blocks = categories()
    letters, marks, numbers = found["L"], found["M"], found["N"]
    low_letters = [c for c in letters if ord(c) < 0x3000]
    spaces = list("  \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e\u001c")
    words = [t for t in source["model"]["vocab"] if t.isascii() and t.strip("Ġ").isalpha()]
    byte_of = {c: b for b, c in enumerate(byte_alphabet())}
    pieces = []
    for token in source["model"]["vocab"]:
        try:
            pieces.append(bytes(byte_of[c] for c in token).decode())
        except UnicodeDecodeError:
            pass
    added = [t["content"] for t in source["added_tokens"]]
    fragments = added + [t[:n] for t in added for n in (1, 2, len(t) // 2, len(t) - 1)] + \
        [t[n:] for t in added for n in (1, 2, len(t) - 1)] + ["<", "|", ">", "<|", "|>", "</", " ", "\n", "x", "user", "é"]
    emoji = ["🧑‍💻", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🇯🇵", "❤️", "1️⃣", "☺︎", "🫠", "\u200d", "\ufe0f", "🏻"]
    code = ["def f(x):\r\n\treturn x\r\n", "if (a[i] != b->c) {", "}\n\n", "    ", "\t\t", "// comment", "0x1F", "std::vector<int>",
            "&&", "::", "/* ", " */", "\\n", "\"str\"", "'c'", "=>", "#include <x.h>\n", "f\"{x!r}\"", "%d\r\n", "...", "self.",
            "camelCaseName", "snake_case_name", "SELECT * FROM t;", "</div>", "@Override", "$x", "^", "~", "`", "a/b/c.py"]
    hangul = [chr(c) for c in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3)]] + \
        [chr(0xAC00 + 28 * n) for n in range(0, 399, 7)] + [chr(0xAC00 + n) for n in range(0, 11172, 377)]
    fold = ["'s", "'S", "'\u017f", "'t", "'RE", "'re", "'vE", "'Ll", "'lL", "'d", "'M", "'", "''", "\u2019s", "'x", "'r", "'l", "'v",
            "'\u212a", "s", "e", "don", " ", "\n", "'\ufb06", "'ll'"]

    def composed():
        """Letters with decompositions, followed by marks in any order."""
        return "".join(random.choice(low_letters) + among(marks[:400], 0, 4) for _ in range(random.randint(1, 6)))

    return [
        (14, lambda: among(pieces, 2, 14)),
        (10, lambda: among(words, 2, 12).replace("Ġ", " ")),
        (14, lambda: among(random.choice(blocks), 2, 12)),
        (6, lambda: "".join(random.choice(random.choice(blocks)) for _ in range(random.randint(2, 12)))),
        (3, lambda: "".join(scalar(0, 0x10FFFF) for _ in range(random.randint(1, 6)))),
        (6, composed),
        (4, lambda: among(marks, 1, 3) + among(letters, 0, 3) + among(marks, 0, 4) + among(" 1a$", 0, 3) + among(marks, 0, 3)),
        (3, lambda: among(hangul, 2, 14)),
        (3, lambda: among(["e", "a", "\u0301", "\u0323", "\u0345", "\u0334", "\u0300", "q", "\u1112"], 2, 16)),
        (5, lambda: among(emoji + [" ", "ok", "!", "a"], 2, 8)),
        (8, lambda: among(code + [" ", "\n", "x", "12"], 2, 9)),
        (7, lambda: among(spaces + ["a", "1", "$", "\n", "\r\n", " ", "  "], 2, 24)),
        (4, lambda: among(numbers + ["a", " ", ".", "12"], 2, 12)),
        (6, lambda: among(fragments, 1, 7)),
        (2, lambda: random.choice(["a", "=", " ", "\n", "\t", "ab", "1", "é", "🧑", "-", "\r\n", "x ", "中"]) * random.randint(20, 120)),
        (5, lambda: among(fold, 2, 10)),
    ]


def encoding(tokenizer, text):
    encoded = tokenizer.encode(text, add_special_tokens=False)
    counts = []
    for at, word in enumerate(encoded.word_ids):
        if at == 0 or word != encoded.word_ids[at - 1]:
            counts.append(0)
        counts[-1] += 1
    assert all(n < 256 for n in counts)
    return struct.pack("<I", len(counts)) + bytes(counts) + pack_ids(encoded.ids)


def pack_ids(ids):
    return b"".join(struct.pack("<I", i)[:3] for i in ids)


def pack_text(text):
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def block_text(first):
    """Each code point alone, after and before letters, marks, digits, blanks; a line end shields what comes next."""
    out = []
    for c in range(first, first + BLOCK):
        if 0xD800 <= c < 0xE000:
            continue
        c = chr(c)
        out += [c, "\na", c, "\n", c, "\u0301\n", c, "\u0323\u0302b\ne\u0323", c, "\u0302\n\u1100", c, "\u11a8\n 1", c, " ", c, "$", c,
                "'s ", c, c, "\n"]
    return "".join(out)


def unicode_goldens():
    nfc = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in
              (load("qwen3")[1]["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], QWEN35)]
    rows = []
    for first in range(0, 0x110000, BLOCK):
        text = block_text(first)
        sums = [zlib.crc32(nfc.normalize_str(text).encode())]
        for split in splits:
            lengths = b"".join(struct.pack("<I", len(piece.encode())) for piece, _ in split.pre_tokenize_str(text))
            sums.append(zlib.crc32(lengths))
        rows.append(f"{first:06x} " + " ".join(f"{s:08x}" for s in sums))
    return f"# NFC and pieces by PyPI tokenizers {tokenizers.__version__}; made by make_goldens.py\n" + "\n".join(rows) + "\n"


def write_toy(folder):
    """Merges that reach a token in two ways or not at all, ids in no order, added tokens that begin, end and lie in each
    other, one that is in the vocabulary too, merges in the old form."""
    vocab, merges = byte_alphabet(), []
    tokens = list("abcde\u0120")
    while len(merges) < 150:
        left, right = random.choice(tokens), random.choice(tokens)
        if len(left + right) < 9 and [left, right] not in merges:
            merges.append([left, right])
            if left + right not in tokens:
                tokens.append(left + right)
                vocab.append(left + right)
    vocab += ["zz", "zab", "abcdeabcde", "<in>"]  # no merge makes them
    random.shuffle(vocab)
    added = [("<s>", True), ("</s>", True), ("<t", False), ("<t><u>", False), ("<u>", False), ("abcd", False), ("bc", False),
             ("cdd", False), ("<in>", False), ("<t>", False), ("\u00e9\u00e8", False), ("e ", False)]
    ids = {token: at for at, token in enumerate(vocab)}
    for content, _ in added:
        ids.setdefault(content, len(ids))
    source = load("qwen3")[1]
    source["model"].update(vocab={token: ids[token] for token in vocab}, merges=[" ".join(pair) for pair in merges])
    source["added_tokens"] = [dict(id=ids[content], content=content, single_word=False, lstrip=False, rstrip=False,
                                   normalized=False, special=special) for content, special in added]
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(source, indent=1, ensure_ascii=False) + "\n")
    atoms = list("abcdeabcdeabcde  z") + [content for content, _ in added] + ["<", ">", "<t", "s>", "\n", "1", "e\u0301", "\u00e9"]
    return [among(atoms, 1, 30) for _ in range(TOY_LINES)]


def line_records(folder, texts):
    words, _ = load(folder)
    marks, _ = load(folder, QWEN35)
    unmarked, _ = load(folder)
    unmarked.encode_special_tokens = True
    out = [struct.pack("<I", len(texts))]
    for text in texts:
        first = encoding(words, text)
        out += [pack_text(text), b"\1", first]
        for other in (marks, unmarked):
            again = encoding(other, text)
            out.append(b"\0" if again == first else b"\1" + again)
    return b"".join(out)


def decode_records(folder, cases):
    tokenizer, _ = load(folder)
    out = [struct.pack("<I", len(cases))]
    for ids in cases:
        out += [struct.pack("<I", len(ids)), pack_ids(ids)]
        out += [pack_text(tokenizer.decode(ids, skip_special_tokens=skip)) for skip in (False, True)]
    return b"".join(out)


def qwen3_lines():
    kinds = generators(load("qwen3")[1])
    weights, makers = zip(*kinds)
    for _ in range(LINES):
        text = random.choices(makers, weights)[0]()
        if random.random() < 0.25:
            text += random.choice([" ", "\n", "", ".", " a", "1"]) + random.choices(makers, weights)[0]()
        yield text


def qwen3_ids():
    for _ in range(DECODES):
        ranges = (0, 256), (0, 151_643), (151_643, 151_669), (90_000, 151_643), (151_669, 152_000)
        yield [random.randrange(*random.choice(ranges)) for _ in range(random.randint(1, 14))]


def main():
    random.seed(20250115)
    goldens = line_records("qwen3", list(qwen3_lines())) + decode_records("qwen3", list(qwen3_ids()))
    (HERE / "qwen3/goldens.bin").write_bytes(goldens)
    random.seed(20250116)
    toy = line_records("toy", write_toy(HERE / "toy"))
    (HERE / "toy/goldens.bin").write_bytes(toy + decode_records("toy", []))
    (HERE / "unicode_goldens.txt").write_text(unicode_goldens())
    print(f"{len(goldens)} + {len(toy)} bytes of lines by tokenizers {tokenizers.__version__}")


if __name__ == "__main__":
    main()
