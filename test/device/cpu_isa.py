#!/usr/bin/env python3
"""Every golden and the conformance tables on a machine with other instruction sets than the one that built the programs.

    python3 test/device/cpu_isa.py FOLDER [ISA...]

FOLDER holds bin/ (qwenrt, conformance_test), lib/ (shared libraries that the machine may lack) and plans/NAME-DTYPE.plan
for checkpoints of test/golden. Needs numpy alone. Prints the worst row of every checkpoint and the benches; exits 1 when
a bound of the contracts (section 11) is missed.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOUNDS = {"f32": 1e-4, "bf16": 2e-2}  # contracts, section 11


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if entry["dtype"] == "F32"
    }


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    env = dict(os.environ, LD_LIBRARY_PATH=str(folder / "lib"))

    def run(*command):
        return subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True)

    devices = run(folder / "bin/qwenrt", "devices", "--json")
    print(devices.stdout or devices.stderr)
    have = [isa for isa, there in json.loads(devices.stdout)["devices"][0]["isas"].items() if there]
    failed = False
    tables = run(folder / "bin/conformance_test", "--gtest_brief=1")
    print("conformance tables:", *tables.stdout.strip().splitlines()[-12:], sep="\n  ")
    failed |= tables.returncode != 0
    for isa in sys.argv[2:] or have:
        for plan in sorted((folder / "plans").glob("*.plan")):
            name, dtype = plan.stem.rsplit("-", 1)
            golden = ROOT / "test/golden" / name
            out = folder / "out.safetensors"
            result = run(folder / "bin/qwenrt", "logits", plan, "--weights", golden, "--tokens", golden / "cases.json",
                         "--isa", isa, "-o", out, "--force")
            if result.returncode != 0:
                print(isa, plan.stem, "exit", result.returncode, result.stderr)
                failed = True
                continue
            want, got = read_safetensors(golden / "golden.safetensors"), read_safetensors(out)
            errors = np.concatenate([
                np.linalg.norm(got[case] - want[case], axis=1) / np.linalg.norm(want[case], axis=1) for case in got
            ])
            experts = "moe" in name or "next" in name  # a rounding may flip an expert
            measure = np.median(errors) if experts and dtype == "bf16" else errors.max()
            held = measure <= BOUNDS[dtype]
            failed |= not held
            print(f"{isa:7} {plan.stem:24} worst {errors.max():.2e} median {np.median(errors):.2e} of {len(errors)} rows"
                  f"{'' if held else '   BEYOND ' + str(BOUNDS[dtype])}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
