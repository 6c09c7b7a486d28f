#!/usr/bin/env python3
"""runtime/kernels/TRAFFIC.md from the tables that e2e_cuda_traffic_test leaves in QWEN_TRAFFIC_DIR.

    python3 test/device/traffic.py TABLE... >runtime/kernels/TRAFFIC.md
"""
import sys

HEAD = """# What a decode kernel moves

Written by `tools/dev accept 6`; change nothing here by hand. One decode step of one sequence on the emulated card, in
layers of real configs (`test/e2e/cuda_traffic_test.cc` says how they are cut), attention and the delta rule behind a
prompt of 505 tokens and over a full turn of the ring.

| column | of a launch |
|---|---|
| operands | bytes that the catalogue (`catalog.cc`) says it must touch |
| sums | what attention's blocks write for the one that merges them; it reads them from L2 |
| moved | distinct sectors of 32 bytes that it read from DRAM or wrote, and how far that is from operands and sums |
| requested | sectors that its warps asked for, of those moved: what L1 and L2 serve again |
| conflicts | passes over the banks of shared memory beyond the first, of all passes |

Kernels of 256 kB a launch and more are held within 5 % by the test. Below that the norms' weights, tables and tickets,
which the catalogue leaves out, are seen. What is asked for more than once: a product's rows and their norm, by each of its
blocks (1.1 to 1.5 times the bytes, all of it L2's); the delta rule's ring records and convolution rows, by each block of a
key head; attention's partial sums, written once and read once by the block that merges them.
"""
print(HEAD + "".join(open(name).read() for name in sys.argv[1:]), end="")
