#!/usr/bin/env python3
"""What the tree promises of itself: who includes whom, a page for every room, op, pass and family, and sources that speak
of the project alone. Prints every violation; exits 1 when there is one. `--self-test` shows that each check can fail."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# A room may include itself and the rooms listed; the longest prefix counts.
ALLOWED = {
    "runtime/base": [],
    "runtime/plan": ["runtime/base"],
    "runtime/kernels": ["runtime/base", "runtime/plan"],
    "runtime/kernels/reference": ["runtime/base"],
    "runtime/text": ["runtime/base"],
    "runtime/device": ["runtime/base", "runtime/plan", "runtime/kernels", "runtime/comm"],
    "runtime/comm": ["runtime/base"],
    "runtime/exec": ["runtime/base", "runtime/plan", "runtime/kernels", "runtime/device", "runtime/comm"],
    "runtime/engine": ["runtime/base", "runtime/plan", "runtime/exec", "runtime/kernels"],
    "runtime/server": ["runtime/base", "runtime/text", "runtime/engine"],
    "runtime/server/http": ["runtime/base"],
    "dialects": ["runtime/base"],
    "passes": ["dialects", "runtime/base", "runtime/plan", "runtime/kernels"],
    "compiler": ["passes", "dialects", "runtime/base", "runtime/plan", "runtime/kernels", "runtime/text"],
    "compiler/verify": ["compiler", "passes", "dialects", "runtime/base", "runtime/plan", "runtime/kernels", "runtime/exec",
                        "runtime/device"],
    "tools/qwenc": ["compiler", "passes", "dialects", "runtime/base", "runtime/plan", "runtime/kernels"],
    "tools/qwen-opt": ["passes", "dialects"],
    "tools/qwenrt": ["runtime/base", "runtime/text", "runtime/plan", "runtime/kernels", "runtime/exec", "runtime/engine",
                     "runtime/server"],
}
# Only the compiler and the tests may know the oracle.
ORACLE = "runtime/kernels/reference"
ORACLE_READERS = ("compiler/", "test/", ORACLE)
FOREIGN = re.compile(r'#include\s+[<"](mlir|llvm|clang)/')
INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.M)
CODE = (".h", ".cc", ".cpp", ".inl", ".cuh", ".td")
# Words that name a workplace instead of the project.
SPEAKS_OF_OTHERS = re.compile(r"(/work/|\.\./shared|/tmp/build-|\bthis session\b|\bhelper agents?\b)", re.I)


def room_of(path):
    rooms = [room for room in ALLOWED if path == room or path.startswith(room + "/")]
    return max(rooms, key=len) if rooms else None


def includes(path, text, problems):
    room = room_of(path)
    if path.startswith("runtime/") and FOREIGN.search(text):
        problems.append(f"{path}: the runtime knows nothing of MLIR or LLVM")
    if room is None:
        return
    for name in INCLUDE.findall(text):
        target = room_of(name)
        if target is None or name.endswith(".inc"):
            continue
        if name.startswith(ORACLE) and not path.startswith(ORACLE_READERS):
            problems.append(f"{path}: includes {name}, but only the compiler and tests know the oracle")
        elif target != room and not target.startswith(room + "/") and not any(
                name.startswith(allowed + "/") for allowed in ALLOWED[room]):
            problems.append(f"{path}: {room} may not include {name}")


def words(path, text, problems):
    match = SPEAKS_OF_OTHERS.search(text)
    if match and not path.startswith("test/repo/"):
        problems.append(f"{path}: speaks of \"{match.group(0)}\"")


def pages(files, read, problems):
    rooms = ["dialects", "passes", "compiler", "runtime", "tools", "test", "compiler/import", "compiler/reference",
             "runtime/base", "runtime/plan", "runtime/kernels", "runtime/device", "runtime/comm", "runtime/exec",
             "runtime/engine", "runtime/server", "runtime/server/http", "runtime/kernels/reference", "configs", "test/golden"]
    for room in rooms:
        page = f"{room}/README.md" if room != "configs" else "configs/SOURCES.md"
        if page not in files:
            problems.append(f"{room}: has no {os.path.basename(page)}")
    for family in re.findall(r'"(\w+)"', re.search(r"list\[\] = \{([^}]*)\}", read("dialects/kernel/KernelDialect.cpp")).group(1)):
        if f"runtime/kernels/{family}/README.md" not in files:
            problems.append(f"family {family}: has no page runtime/kernels/{family}/README.md")
    # Ops and passes: their descriptions are their pages, gathered in REFERENCE.md.
    for dialect in ("model", "kernel", "plan"):
        reference = f"dialects/{dialect}/REFERENCE.md"
        text = read(reference) if reference in files else ""
        for path in sorted(files):
            if path.startswith(f"dialects/{dialect}/") and path.endswith(".td"):
                for op in re.findall(rf'_Op<"(\w+)"', read(path)):
                    if f"`{dialect}.{op}`" not in text:
                        problems.append(f"op {dialect}.{op}: is not in {reference}; run tools/dev docs")
    reference = read("passes/REFERENCE.md") if "passes/REFERENCE.md" in files else ""
    for flag in re.findall(r'Pass<"([\w-]+)"', read("passes/Passes.td")):
        if f"`-{flag}`" not in reference:
            problems.append(f"pass {flag}: is not in passes/REFERENCE.md; run tools/dev docs")


def constraints(files, read, problems):
    """Each constraint number stands in the description, at the line that checks it (or the trait that does), and at a
    test of invalid IR."""
    for dialect in ("model", "kernel", "plan"):
        tds = "".join(read(p) for p in sorted(files) if p.startswith(f"dialects/{dialect}/") and p.endswith(".td"))
        code = tds + "".join(read(p) for p in sorted(files) if p.startswith(f"dialects/{dialect}/") and p.endswith(".cpp"))
        tests = "".join(read(p) for p in sorted(files) if p.startswith(f"test/dialects/{dialect}/"))
        for body in re.split(r"\ndef ", tds)[1:]:
            op = re.match(rf'\w+ : \w+_Op<"(\w+)"', body)
            if not op:
                continue
            for number in re.findall(r"\(C(\d+)\)", body):
                tag = f"{op.group(1)}_c{number}"
                if tag not in tests:
                    problems.append(f"{dialect}.{op.group(1)}: constraint {tag} has no test of invalid IR")
                if tag not in code and "embed_c1" != tag:
                    problems.append(f"{dialect}.{op.group(1)}: constraint {tag} is checked nowhere")


def check(files, read):
    problems = []
    for path in sorted(files):
        if path.endswith(CODE):
            includes(path, read(path), problems)
        if path.endswith(CODE + (".md", ".py", ".txt", ".def", ".fbs", ".test", ".mlir")) or path in ("tools/dev", "tools/accept"):
            words(path, read(path), problems)
    pages(files, read, problems)
    constraints(files, read, problems)
    return problems


def tree():
    files = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in (".git", "build", "__pycache__")]
        for name in names:
            files.add(os.path.relpath(os.path.join(folder, name), ROOT))
    return files


def self_test():
    def problems_of(path, text):
        found = []
        includes(path, text, found)
        words(path, text, found)
        return found

    assert problems_of("runtime/exec/x.cc", '#include "runtime/engine/sequence.h"\n')
    assert problems_of("runtime/exec/x.cc", "#include <mlir/IR/Builders.h>\n")
    assert problems_of("runtime/engine/x.cc", '#include "runtime/kernels/reference/ops.h"\n')
    assert problems_of("dialects/model/x.cpp", '#include "passes/Passes.h"\n')
    assert problems_of("README.md", "see /work/notes")
    assert not problems_of("runtime/exec/x.cc", '#include "runtime/base/status.h"\n')
    files = tree()
    read = lambda path: open(os.path.join(ROOT, path), encoding="utf-8", errors="replace").read()
    found = []
    pages(files - {"runtime/kernels/gdn/README.md"}, read, found)
    assert any("family gdn" in problem for problem in found), found
    print("every check can fail")


if __name__ == "__main__":
    if "--self-test" in sys.argv:
        self_test()
        sys.exit(0)
    found = check(tree(), lambda path: open(os.path.join(ROOT, path), encoding="utf-8", errors="replace").read())
    for problem in found:
        print(problem)
    print(f"{len(found)} violations")
    sys.exit(1 if found else 0)
