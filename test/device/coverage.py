#!/usr/bin/env python3
"""What share of a plan's PTX the emulator executed, from its reports.

    python3 test/device/coverage.py REPORT.json...   [--rest FILE]

A line a report, then one for all; FILE gets the instructions that no warp of any report ran. Exits 1 when the whole is below
95 %.
"""
import argparse
import collections
import json
import os
import sys

parser = argparse.ArgumentParser()
parser.add_argument("reports", nargs="+")
parser.add_argument("--rest")
options = parser.parse_args()

whole = [0, 0]
rest = collections.defaultdict(set)  # of a kernel that several plans have: what none of them ran
seen = set()
for name in options.reports:
    if not os.path.exists(name):
        sys.exit(f"coverage.py: {name} is not there")
    kernels = json.load(open(name))["kernels"]
    if not kernels:
        sys.exit(f"coverage.py: {name} has no kernels")
    ran = sum(k["ptx_instructions_executed"] for k in kernels.values())
    all_of_it = sum(k["ptx_instructions"] for k in kernels.values())
    whole[0] += ran
    whole[1] += all_of_it
    least = min(kernels, key=lambda n: kernels[n]["ptx_instructions_executed"] / max(1, kernels[n]["ptx_instructions"]))
    print(f"figure: {os.path.basename(name)}: {ran} of {all_of_it} instructions of {len(kernels)} kernels ran "
          f"({100 * ran / max(1, all_of_it):.1f} %), least of {least} "
          f"({100 * kernels[least]['ptx_instructions_executed'] / max(1, kernels[least]['ptx_instructions']):.0f} %)")
    for kernel, counts in kernels.items():
        lines = set(counts["not_executed"])
        rest[kernel] = rest[kernel] & lines if kernel in seen else lines
        seen.add(kernel)
share = whole[0] / max(1, whole[1])
print(f"figure: {whole[0]} of {whole[1]} instructions ran, {100 * share:.1f} % (asked 95)")
if options.rest:
    with open(options.rest, "w") as out:
        for kernel in sorted(rest):
            for line in sorted(rest[kernel], key=lambda line: int(line.split(":")[0])):
                out.write(f"{kernel}: {line}\n")
    families = collections.Counter()
    for kernel, lines in rest.items():
        families[kernel.split("__")[0]] += len(lines)
    print(f"figure: {sum(families.values())} instructions that no plan ran are listed in {options.rest}: "
          + ", ".join(f"{family} {count}" for family, count in families.most_common() if count))
sys.exit(share < 0.95)
