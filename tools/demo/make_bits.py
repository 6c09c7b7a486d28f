"""Writes test/demo/goldens/bits_per_byte.json: transformers' bits a byte on the first 24 kB of the held-out text, in f32, by
evaluate.py's windows, for each checkpoint. A test holds `qwenrt perplexity` against it."""

import json
import pathlib
import sys

import transformers

import evaluate

BYTES = 24_000
DEMO = pathlib.Path(__file__).resolve().parent.parent.parent / "test/demo"


def main():
    transformers.logging.set_verbosity_error()
    text = (DEMO / "heldout.txt").read_bytes()[:BYTES].decode()
    out = {}
    for name in ("qwen3_5-demo", "qwen3_5_moe-demo"):
        lm = transformers.AutoModelForCausalLM.from_pretrained(DEMO / name, dtype="float32", attn_implementation="sdpa").eval()
        ids = transformers.AutoTokenizer.from_pretrained(DEMO / name)(text, add_special_tokens=False)["input_ids"]
        bits = evaluate.bits_through_transformers(lm, ids, len(text.encode()))
        out[name] = dict(bytes=len(text.encode()), tokens=len(ids), bits_per_byte=bits)
    (DEMO / "goldens/bits_per_byte.json").write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
