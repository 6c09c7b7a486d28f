#!/usr/bin/env python3
"""What share of a plan's PTX the emulator executed, from its reports.

    python3 test/device/coverage.py REPORT.json...   [--rest]

A line a report, then one for all; --rest lists the instructions that no warp ran. Exits 1 when the whole is below 95 %.
"""
import json
import sys

files = [a for a in sys.argv[1:] if not a.startswith("--")]
whole = [0, 0]
for name in files:
    kernels = json.load(open(name))["kernels"]
    ran = sum(k["ptx_instructions_executed"] for k in kernels.values())
    all_of_it = sum(k["ptx_instructions"] for k in kernels.values())
    whole[0] += ran
    whole[1] += all_of_it
    least = min(kernels, key=lambda n: kernels[n]["ptx_instructions_executed"] / kernels[n]["ptx_instructions"])
    print(f"figure: {name}: {ran} of {all_of_it} instructions of {len(kernels)} kernels ran ({100 * ran / all_of_it:.1f} %), "
          f"least of {least} ({100 * kernels[least]['ptx_instructions_executed'] / kernels[least]['ptx_instructions']:.0f} %)")
    if "--rest" in sys.argv:
        for kernel, counts in kernels.items():
            for line in counts["not_executed"]:
                print(f"  {kernel}: {line}")
share = whole[0] / max(1, whole[1])
print(f"figure: {whole[0]} of {whole[1]} instructions ran, {100 * share:.1f} % (asked 95)")
sys.exit(share < 0.95)
