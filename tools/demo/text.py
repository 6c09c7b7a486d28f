"""From the formats that packages carry to plain paragraphs: one paragraph a line, blocks apart by an empty line."""

import gzip
import html
import re
import subprocess
import zlib

DROPPED = re.compile(r"<(script|style|head|nav|header|footer|svg|math|button|select|form)\b.*?</\1\s*>", re.S | re.I)
PRE = re.compile(r"<pre\b[^>]*>(.*?)</pre\s*>", re.S | re.I)
BLOCK = re.compile(r"</?(p|div|h[1-6]|ul|ol|dl|table|section|article|main|blockquote|hr|body|dt|figure)\b[^>]*>", re.I)
LINE = re.compile(r"<(br|li|tr|dd)\b[^>]*>|</tr>", re.I)
TAG = re.compile(r"<[^>]{0,2000}>")
RUDE = re.compile(r"slur|offensive|obscen|vulgar|disparag|derogat|sexual|genital|copulat")
BODY = re.compile(
    r"<(?:main|article)\b[^>]*>.*</(?:main|article)\s*>|<div[^>]*(?:role=\"main\"|class=\"body\").*", re.S | re.I
)


def read(path):
    data = gzip.open(path).read() if path.suffix in (".gz", ".dz") else path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def paragraphs(text):
    """Joins the lines of each block; an empty line or a deeper or list-like start ends one."""
    out, line = [], ""
    for raw in text.splitlines():
        part = raw.strip()
        if not part or re.match(r"[-*•] |\d+[.)] ", part):
            out.append(line)
            line = part
            if not part:
                out.append("")
        else:
            line = f"{line} {part}" if line else part
    out.append(line)
    return "\n".join(out)


def squeeze(text):
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def from_html(path):
    text = read(path)
    main = BODY.search(text)
    text = DROPPED.sub(" ", main.group(0) if main else text)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.S)
    kept = []

    def keep(match):
        code = html.unescape(TAG.sub("", match.group(1))).strip("\n")
        kept.append(code.expandtabs(4))
        return f"\n\n\x00{len(kept) - 1}\x00\n\n"

    text = PRE.sub(keep, text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\x00(\d+)\x00", "\n\n\x00\\1\x00\n\n", text)
    text = re.sub(r"</t[dh]>", " | ", text, flags=re.I)
    text = re.sub(r"<li\b[^>]*>\s*(?:<p\b[^>]*>)?", "\n- ", text, flags=re.I)
    text = BLOCK.sub("\n\n", LINE.sub("\n", text))
    text = html.unescape(TAG.sub("", text)).replace("\xa0", " ").replace("¶", "").replace("\xad", "")
    text = "\n".join(re.sub(r" +", " ", line).strip(" |") for line in text.splitlines())
    text = re.sub(r"\n-\s*\n+", "\n- ", text)
    return squeeze(re.sub(r"\x00(\d+)\x00", lambda m: kept[int(m.group(1))], text))


def from_text(path):
    return squeeze(paragraphs(read(path)))


def from_plain(path):
    return squeeze(read(path).expandtabs(4))


def from_man(path):
    text = subprocess.run(
        ["groff", "-k", "-mandoc", "-Tutf8", "-P-cbou", "-rLL=1000n", "-rHY=0", "-dAD=l"],
        input=read(path).encode(),
        capture_output=True,
    ).stdout.decode("utf-8", "replace")
    return squeeze(
        "\n".join(
            re.sub(r"(\S) {2,}(?=\S)", r"\1 ", re.sub(r"^ {3,7}(?=\S)", "", line)) for line in text.splitlines()[1:-1]
        )
    )


def from_pod(path):
    text = subprocess.run(["pod2text", "-w", "100000", "-i", "0", str(path)], capture_output=True).stdout
    return squeeze(text.decode("utf-8", "replace").expandtabs(4))


def from_mallard(path):
    text = re.sub(r"<(info|links|media|desc)\b.*?</\1>|<\?.*?\?>", " ", read(path), flags=re.S)
    text = re.sub(r"<(title|p|item|screen|code mime)\b", r"\n\n<\1", re.sub(r"\s+", " ", text))
    return squeeze(
        "\n".join(re.sub(r" +", " ", line).strip() for line in html.unescape(TAG.sub("", text)).splitlines())
    )


def from_wesnoth(path):
    """What the campaigns say: the translatable strings, in order."""
    text = read(path)
    found = re.findall(r'(speaker|message|story|name|description|caption)\s*=\s*(_?\s*"(?:[^"]|"")*"|\w+)', text)
    out, speaker = [], ""
    for key, value in found:
        if key == "speaker":
            speaker = value.strip('"_ ')
            continue
        if not value.startswith("_"):
            continue
        said = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", value[1:].strip().strip('"').replace('""', '"'))).strip()
        if len(said) > 40:
            out.append(f"{speaker}: {said}" if key == "message" and speaker.isalpha() else said)
    return squeeze("\n\n".join(out))


def from_gcide(path):
    """-> pieces of the dictionary, without etymologies and source marks"""
    text = re.sub(
        r"\[(?:1913 Webster|PJC|WordNet[^\]]*|Webster[^\]]*|Obs\.?|R\.|L\..*?|F\..*?|Gr\..*?|OE\..*?|AS\..*?)\]|--?\s*\[.*?\]",
        "",
        read(path),
        flags=re.S,
    )
    text = re.sub(r"\\[^\\\n]*\\,?", ",", text).replace("{", "").replace("}", "")
    return pieces(squeeze(paragraphs(re.sub(r" ,", ",", text))))


def pieces(text, size=16000):
    """Cuts at empty lines into parts of about `size` characters."""
    out, part, length = [], [], 0
    for block in text.split("\n\n"):
        part.append(block)
        length += len(block)
        if length > size:
            out.append("\n\n".join(part))
            part, length = [], 0
    return out + ["\n\n".join(part)]


def from_foldoc(path):
    return squeeze(paragraphs(re.sub(r"[{}]", "", read(path)).split("\n\n\n", 1)[-1]))


def wordnet(path):
    """-> (word, kind, meaning, examples) of every synset of one data file"""
    kinds = dict(n="noun", v="verb", a="adjective", s="adjective", r="adverb")
    for line in path.read_text("latin-1").splitlines():
        if line.startswith("  "):
            continue
        head, gloss = line.split(" | ", 1)
        if RUDE.search(gloss):
            continue
        fields = head.split()
        meaning, *rest = re.split(r'; (?=")', gloss.strip())
        examples = [e.strip('"; ') for e in rest if e.strip('"; ')]
        yield fields[4].split("(")[0].replace("_", " "), kinds[fields[2]], meaning, examples


def from_wordnet(path):
    out = []
    for word, kind, meaning, examples in wordnet(path):
        said = " ".join(f"For example: “{e}”." if i == 0 else f"Also: “{e}”." for i, e in enumerate(examples[:2]))
        out.append(f"{word} ({kind}): {meaning}. {said}".strip())
    return squeeze("\n".join(out))


def from_austen(path):
    """-> the books. R's lazy-load database: a length and a zlib stream a value; in it every string is 4 bytes of flags
    that end in 9, a length, the bytes."""
    data, books, at = path.read_bytes(), [], 0
    while at < len(data):
        decoder = zlib.decompressobj()
        body = decoder.decompress(data[at + 4 :])
        at = len(data) - len(decoder.unused_data)
        lines, here = [], 0
        while match := re.compile(rb"\x00[\x00\x04][\x00\x80]\x09(....)", re.S).search(body, here):
            here = match.end() + int.from_bytes(match.group(1), "big")
            lines.append(body[match.end() : here].decode("utf-8", "replace"))
        if len(lines) > 1000:
            books.append(squeeze(paragraphs("\n".join(lines))))
    return books
