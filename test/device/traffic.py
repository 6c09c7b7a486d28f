#!/usr/bin/env python3
"""runtime/kernels/TRAFFIC.md from the tables that e2e_cuda_traffic_test leaves in QWEN_TRAFFIC_DIR, one a model.

    python3 test/device/traffic.py FOLDER PAGE

The page is put in place whole, and only when every model has its table.
"""
import os
import sys

MODELS = ["Qwen3.5-0.8B", "Qwen3.5-4B", "Qwen3.5-27B", "Qwen3.5-35B-A3B"]
HEAD = """# What a decode kernel moves

Written by `tools/dev accept 6`; change nothing here by hand. One decode step of one sequence on the emulated card, in
layers of real configs (`test/e2e/cuda_traffic_test.cc` says how they are cut), attention and the delta rule behind a
prompt of 505 tokens and over a full turn of the ring. A column is of a launch:

| column | what |
|---|---|
| floor | bytes that the config's dimensions ask for: bf16 weights and cache, f32 rows and state |
| operands | bytes that the catalogue (`catalog.cc`) says it must touch |
| sums | what attention's blocks write for the one that merges them; it reads them from L2 |
| moved | distinct sectors of 32 bytes that it read from DRAM or wrote, sums among them |
| of floor, of operands | how far what it moved without the sums is from them |
| requested | sectors that its warps asked for, of those moved: what L1 and L2 serve again |
| conflicts | passes over the banks of shared memory beyond the first, of all passes |

The test holds kernels of 64 kB a launch and more, all but `embed`, within 5 % of floor and of operands, and a layer's
launches within 5 % of the table of floors that the kernels were designed to. Three things are apart:

- **The state** of the delta rule is not read and written in every step. S0 is read in each and written in one of eight,
  with 4.5 records of the ring read and one written in the mean: its floor. Read and written every time, which the table
  of floors has, S0 alone is up to half as much again.
- **Sums** are attention's price for many blocks: `head_dim + 2` floats a query head for every 128 tokens and for the
  step's own, at most 6.3 % of the keys and values of a long past. Written once and read once, soon after, from an L2 of
  72 MB.
- **`embed` of a tied model** reads its row from the lm_head's packed matrix. A sector there holds two columns of eight
  rows, so 4 of its 32 bytes are the row's: eight times 2 kB of 0.8B. A table of its own, in rows, costs its own bytes.

What may be asked for again, at most: a product's rows and norm, by each of its blocks and twice, as a lane's eight floats
are two loads of one sector (1.55 times what it moves, most with a gate in front; lm_head 1.4, experts 1.3, the router
1.8, as its sixteen blocks have a mebibyte of weights between them); the delta rule's records, convolution rows and
filter, by each block of a key head (2.7); attention's query by its blocks and the sums by the last (1.5).

Shared memory has no conflicts but attention's, 1.5 % at most and outside its loop over keys: where a head's query changes
to the order of the lanes that read it, two lanes a bank, and where a warp adds up the sums of two heads.
"""

folder, page = sys.argv[1:]
tables = [os.path.join(folder, model) for model in MODELS]
for table in tables:
    if not os.path.exists(table):
        sys.exit(f"traffic.py: {table} is not there; {page} stays as it is")
with open(page + ".tmp", "w") as out:
    out.write(HEAD + "".join(open(table).read() for table in tables))
os.replace(page + ".tmp", page)
