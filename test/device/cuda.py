#!/usr/bin/env python3
"""What a real CUDA card makes of the programs, PTX and goldens that were built elsewhere.

    python3 test/device/cuda.py FOLDER [--only PART,...] [--emulator REPORT.json]

FOLDER holds bin/ (qwenrt, conformance_test, cuda_emulator_test), lib/ (shared libraries that the machine may lack) and
plans/NAME-DTYPE.plan with programs for sm_89: of checkpoints of test/golden, and of real configs, which are benched on
made-up weights. Needs numpy, NVRTC and a driver; compute-sanitizer, torch and ncu for the parts that name them.

Parts, all of them by default, in this order:
  tables      the emulator's own tests on the driver, then every conformance table
  sanitize    memcheck, racecheck and initcheck of compute-sanitizer over the tables
  goldens     every golden, alone and in one batch
  demo        greedy text of demo/, a checkpoint with its plan (plans/demo.plan) for both targets: the card's is the CPU's
  ceilings    a copy on the card and a product of cuBLAS, in torch
  bench       decode and prompts of the real configs
  profile     ncu's counters of one small run of the first of them, beside the emulator's of the same command (PROFILED),
              whose report --emulator names

Prints what each found; exits 1 when a bound of the contracts (section 11) is missed or a part failed.
"""
import argparse
import collections
import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np

from cpu_isa import BOUNDS, ROOT, read_safetensors

PARTS = ["tables", "sanitize", "goldens", "demo", "ceilings", "bench", "profile"]
SHARDS = 16  # processes that share the conformance tables, most of whose time is NVRTC's
PROFILED = ["--weights", "random:1", "--device", "cuda", "--context", "40", "--steps", "1", "--repeat", "1", "--prefill", "33",
            "--ceiling-bytes", "16MiB", "--progress", "none"]
METRICS = {
    "time": "gpu__time_duration.sum",
    "read": "dram__bytes_read.sum",
    "write": "dram__bytes_write.sum",
    "sectors": "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "instructions": "smsp__inst_executed.sum",
    "conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "registers": "launch__registers_per_thread",
}


class Card:
    def __init__(self, folder):
        self.folder = folder
        self.env = dict(os.environ, QWENRT_CUDA_DRIVER="libcuda.so.1")
        self.env["LD_LIBRARY_PATH"] = f"{folder / 'lib'}:/usr/local/cuda/lib64:" + os.environ.get("LD_LIBRARY_PATH", "")

    def start(self, *command, **more):
        return subprocess.Popen([str(c) for c in command], env=dict(self.env, **more), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def run(self, *command):
        process = self.start(*command)
        return process.communicate()[0], process.returncode

    def plans(self, golden):
        for plan in sorted((self.folder / "plans").glob("*.plan")):
            if plan.stem != "demo" and (ROOT / "test/golden" / plan.stem.rsplit("-", 1)[0]).exists() == golden:
                yield plan

    def tables_under(self, name, prefix, tests="Cuda/*"):
        shards = [self.start(*prefix, self.folder / "bin/conformance_test", f"--gtest_filter={tests}",
                             GTEST_TOTAL_SHARDS=str(SHARDS), GTEST_SHARD_INDEX=str(i)) for i in range(SHARDS)]
        return self.judge(name, shards)

    def judge(self, name, processes):
        lines = [line for p in processes for line in p.communicate()[0].splitlines()]
        bad = sorted({line for line in lines if line.startswith("[  FAILED  ]") and "tests," not in line})
        bad += sorted({line for line in lines if re.match(r"=+ ERROR SUMMARY: [1-9]", line)})
        passed = sum(line.startswith("[       OK ]") for line in lines)
        print(f"{name}: {passed} passed, {len(bad)} failed", *bad, sep="\n  ", flush=True)
        if bad or any(p.returncode for p in processes):
            told = [line for line in lines if not line.startswith(("[ RUN", "[       OK"))]
            print("\n".join(told[:60]))
        return not bad and not any(p.returncode for p in processes) and passed > 0

    def tables(self):
        own = self.judge("emulator's tests", [self.start(self.folder / "bin/cuda_emulator_test")])
        return self.tables_under("tables", []) and own

    def sanitize(self):
        held = True
        for tool in ["memcheck", "racecheck", "initcheck"]:
            more = ["--error-exitcode", "9", "--print-limit", "5"]
            held &= self.tables_under(f"tables under {tool}", ["compute-sanitizer", "--tool", tool, *more])
        return held

    def goldens(self):
        held = True
        for plan in self.plans(golden=True):
            name, dtype = plan.stem.rsplit("-", 1)
            golden = ROOT / "test/golden" / name
            want = read_safetensors(golden / "golden.safetensors")
            for batch in ([], ["--batch"]):
                out = self.folder / "out.safetensors"
                text, code = self.run(self.folder / "bin/qwenrt", "logits", plan, "--weights", golden, "--tokens",
                                      golden / "cases.json", "--device", "cuda", *batch, "-o", out, "--force")
                if code != 0:
                    print(plan.stem, "exit", code, text)
                    held = False
                    continue
                got = read_safetensors(out)
                errors = np.concatenate([
                    np.linalg.norm(got[case] - want[case], axis=1) / np.linalg.norm(want[case], axis=1) for case in got
                ])
                experts = "moe" in name or "next" in name  # a rounding may flip an expert
                measure = np.median(errors) if experts and dtype == "bf16" else errors.max()
                held &= bool(measure <= BOUNDS[dtype])
                print(f"{plan.stem:24} {'batch' if batch else 'alone'} worst {errors.max():.2e} median "
                      f"{np.median(errors):.2e} of {len(errors)} rows"
                      f"{'' if measure <= BOUNDS[dtype] else '   BEYOND ' + str(BOUNDS[dtype])}", flush=True)
        return held

    def demo(self):
        same = 0
        prompts = ["The first thing to know about a file is", "Call me", "To list the open ports, run", "It was a bright cold day"]
        for prompt in prompts:
            texts = [self.run(self.folder / "bin/qwenrt", "run", self.folder / "plans/demo.plan", "--weights", self.folder / "demo",
                              "--prompt", prompt, "--temperature", "0", "--max-tokens", "64", "--progress", "none", "--device",
                              device) for device in ("cpu", "cuda")]
            same += texts[0] == texts[1] and texts[0][1] == 0
            if texts[0] != texts[1]:
                print(*texts, sep="\n")
        print(f"demo: {same} of {len(prompts)} greedy texts of 64 tokens are the CPU's", flush=True)
        return same == len(prompts)

    def ceilings(self):
        import torch

        def best(work, amount):
            seconds = []
            for _ in range(20):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                work()
                end.record()
                torch.cuda.synchronize()
                seconds.append(start.elapsed_time(end) / 1e3)
            return amount / min(seconds)

        a = torch.empty(1 << 30, dtype=torch.int32, device="cuda")
        b = torch.empty_like(a)
        print(f"copy of 4 GiB: {best(lambda: b.copy_(a), 2 * a.nbytes) / 1e9:.0f} GB/s read and written")
        print(f"sum of 4 GiB: {best(lambda: a.view(torch.float32).sum(), a.nbytes) / 1e9:.0f} GB/s read")
        x, y = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        print(f"cuBLAS bf16 8192^3: {best(lambda: x @ y, 2 * 8192**3) / 1e12:.0f} TFLOP/s", flush=True)
        return True

    def bench(self):
        held = True
        for plan in self.plans(golden=False):
            text, code = self.run(self.folder / "bin/qwenrt", "bench", plan, "--weights", "random:1", "--device", "cuda",
                                  "--ceiling-bytes", "64MiB", "--repeat", "3", "--decode", "1,4,16", "--prefill", "512")
            print(plan.stem, "exit", code)
            print(text, flush=True)
            held &= code == 0
        return held

    def profile(self, report):
        plan = next(self.plans(golden=False))
        text, code = self.run("ncu", "--graph-profiling", "node", "--csv", "--page", "raw", "--metrics",
                              ",".join(METRICS.values()), "--replay-mode", "kernel", self.folder / "bin/qwenrt", "bench", plan,
                              *PROFILED)
        lines = text.splitlines()
        head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
        if code != 0 or head is None:
            print("ncu: exit", code, text[-2000:])
            return False
        rows = [row for row in csv.DictReader(io.StringIO("\n".join(lines[head:]))) if row.get("ID", "").isdigit()]
        units = next(csv.DictReader(io.StringIO("\n".join(lines[head:head + 2]))))
        scale = {"ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6, "nsecond": 1e-3, "usecond": 1, "msecond": 1e3, "byte": 1,
                 "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
        sums = collections.defaultdict(lambda: collections.Counter())
        for row in rows:
            kernel = sums[row["Kernel Name"].split("(")[0]]
            kernel["launches"] += 1
            for key, metric in METRICS.items():
                kernel[key] += float(row[metric].replace(",", "")) * scale.get(units[metric], 1)
        emulated = json.load(open(report))["kernels"] if report else {}
        print(f"{plan.stem}: {len(rows)} launches; emulated beside measured, in all launches of a kernel")
        print(f"{'kernel':52} {'launches':>8} {'us':>8} {'regs':>5} {'DRAM KB':>10} {'unique KB':>10} {'ratio':>6} "
              f"{'instr':>10} {'emulated':>10} {'conflicts':>9} {'emulated':>9}")
        for name, k in sorted(sums.items(), key=lambda item: -item[1]["time"]):
            e = emulated.get(name, {})
            unique = 32 * e.get("read_sectors_unique", 0)
            ratio = f"{k['read'] / unique:.3f}" if unique else "-"
            print(f"{name:52} {k['launches']:8} {k['time'] / k['launches']:8.1f} {k['registers'] / k['launches']:5.0f} "
                  f"{k['read'] / 1e3:10.0f} {unique / 1e3:10.0f} {ratio:>6} {k['instructions']:10.0f} "
                  f"{e.get('warp_instructions', 0):10} {k['conflicts']:9.0f} {e.get('bank_conflicts', 0):9}", flush=True)
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--emulator", type=pathlib.Path)
    given = parser.parse_args()
    card = Card(given.folder.resolve())
    print(card.run(card.folder / "bin/qwenrt", "devices")[0], flush=True)
    failed = []
    for part in given.only.split(","):
        print(f"-- {part}", flush=True)
        held = card.profile(given.emulator) if part == "profile" else getattr(card, part)()
        if not held:
            failed.append(part)
    print("failed: " + (", ".join(failed) or "nothing"))
    return 1 if failed else 0


sys.exit(main())
