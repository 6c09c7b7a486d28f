#!/usr/bin/env python3
"""What a real CUDA card makes of the programs, PTX and goldens that were built elsewhere.

    python3 test/device/cuda.py FOLDER [--quick]

FOLDER holds bin/ (qwenrt, conformance_test, cuda_emulator_test), lib/ (shared libraries that the machine may lack) and
plans/NAME-DTYPE.plan with programs for sm_89: of checkpoints of test/golden, and of real configs, which are benched on
made-up weights. Needs numpy, NVRTC and a driver. In turn: the emulator's own tests on the driver, every conformance
table, every golden, the benches. Prints what each found; exits 1 when a bound of the contracts (section 11) is missed.
"""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from cpu_isa import BOUNDS, ROOT, read_safetensors

SHARDS = 8  # processes that share the conformance tables, most of whose time is NVRTC's


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    env = dict(os.environ, QWENRT_CUDA_DRIVER="libcuda.so.1")
    env["LD_LIBRARY_PATH"] = f"{folder / 'lib'}:/usr/local/cuda/lib64:" + env.get("LD_LIBRARY_PATH", "")

    def start(*command, **more):
        return subprocess.Popen([str(c) for c in command], env=dict(env, **more), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def run(*command):
        process = start(*command)
        return process.communicate()[0], process.returncode

    failed = False
    print(run(folder / "bin/qwenrt", "devices")[0])
    if "--quick" not in sys.argv:
        tables = [start(folder / "bin/conformance_test", "--gtest_filter=Cuda/*", GTEST_TOTAL_SHARDS=str(SHARDS),
                        GTEST_SHARD_INDEX=str(i)) for i in range(SHARDS)]
        for name, processes in [("emulator's tests", [start(folder / "bin/cuda_emulator_test")]), ("tables", tables)]:
            lines = [line for p in processes for line in p.communicate()[0].splitlines()]
            bad = sorted({line for line in lines if line.startswith("[  FAILED  ]") and "tests," not in line})
            passed = sum(line.startswith("[       OK ]") for line in lines)
            print(f"{name}: {passed} passed, {len(bad)} failed", *bad, sep="\n  ")
            failed |= bool(bad) or any(p.returncode for p in processes)

    for plan in sorted((folder / "plans").glob("*.plan")):
        name, dtype = plan.stem.rsplit("-", 1)
        golden = ROOT / "test/golden" / name
        if not golden.exists():
            continue
        want = read_safetensors(golden / "golden.safetensors")
        for batch in ([], ["--batch"]):
            out = folder / "out.safetensors"
            text, code = run(folder / "bin/qwenrt", "logits", plan, "--weights", golden, "--tokens",
                             golden / "cases.json", "--device", "cuda", *batch, "-o", out, "--force")
            if code != 0:
                print(plan.stem, "exit", code, text)
                failed = True
                continue
            got = read_safetensors(out)
            errors = np.concatenate([
                np.linalg.norm(got[case] - want[case], axis=1) / np.linalg.norm(want[case], axis=1) for case in got
            ])
            experts = "moe" in name or "next" in name  # a rounding may flip an expert
            measure = np.median(errors) if experts and dtype == "bf16" else errors.max()
            held = measure <= BOUNDS[dtype]
            failed |= not held
            print(f"{plan.stem:24} {'batch' if batch else 'alone'} worst {errors.max():.2e} median "
                  f"{np.median(errors):.2e} of {len(errors)} rows{'' if held else '   BEYOND ' + str(BOUNDS[dtype])}")

    for plan in sorted((folder / "plans").glob("*.plan")):
        if (ROOT / "test/golden" / plan.stem.rsplit("-", 1)[0]).exists():
            continue
        for extra in (["--decode", "1,4,16", "--prefill", "512"],):
            text, code = run(folder / "bin/qwenrt", "bench", plan, "--weights", "random:1", "--device", "cuda",
                             "--ceiling-bytes", "64MiB", "--repeat", "3", *extra)
            print(plan.stem, *extra, "exit", code)
            print(text)
            failed |= code != 0
    return 1 if failed else 0


sys.exit(main())
