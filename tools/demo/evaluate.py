"""Judges a demo checkpoint on held-out text: `evaluate.py CHECKPOINT TEXT [--plan PLAN --qwenrt PROGRAM] [--train WORK]`

Bits a byte through transformers in f32, and through `qwenrt perplexity` beside it; `xz -9e` on the same file; the same words
in another order; the share of tokens of each expert; how often the MTP head's drafts are the model's own choice, also with
the halves of mtp.fc exchanged; and how much of the text data.py's training text says too.

Windows: the text is encoded once, with no special token before it. Window k covers ids [512 k, 512 k + 1024), cut at the end.
Window 0 scores all its ids but the first, every later one its ids from place 512 on: each id but the very first is scored
once, after 512 to 1,023 others where the text has them. Bits a byte = sum of -log2 p over the scored ids / bytes of the text.
"""

import argparse
import json
import lzma
import math
import pathlib
import random
import re
import subprocess
import sys

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

import model

WINDOW, STRIDE = 1024, 512
SHUFFLED = 60_000  # bytes of the text whose words are shuffled


def windows(ids):
    """-> (ids of the window, first place that is scored), the last window perhaps short"""
    out, start = [], 0
    while True:
        out.append((ids[start : start + WINDOW], 1 if start == 0 else WINDOW - STRIDE))
        if start + WINDOW >= len(ids):
            return out
        start += STRIDE


@torch.no_grad()
def bits_through_transformers(lm, ids, size):
    nats = 0.0
    for part, first in windows(ids):
        logits = lm(input_ids=torch.tensor([part]), use_cache=False).logits[0]
        nats += F.cross_entropy(logits[first - 1 : -1], torch.tensor(part[first:]), reduction="sum").item()
    return nats / math.log(2) / size


def watch_experts(lm):
    """-> per sparse layer, tokens each expert was chosen for, filled in as the model runs"""
    counts = []
    for layer in lm.model.layers:
        if hasattr(layer.mlp, "gate"):
            count = torch.zeros(lm.config.num_experts)
            counts.append(count)

            def add(module, inputs, output, count=count):
                count.add_(torch.bincount(output[2].flatten(), minlength=len(count)))

            layer.mlp.gate.register_forward_hook(add)
    return counts


@torch.no_grad()
def drafts(net, ids, steps=3):
    """Teacher forced, windows apart. -> share of rows where step s of the head chooses as the model does"""
    p, spec = net.head_parameters(), net.spec
    rows = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    cos, sin = model.rotation(spec, WINDOW, rows.device)
    hits, seen = [0] * steps, [0] * steps
    for part in rows:
        h = net.lm.model(input_ids=part[None], use_cache=False).last_hidden_state
        best = F.linear(h, p["embed"]).argmax(-1)
        outs, _ = model.mtp_steps(h[:, :-1], part[None, 1:], p, spec, cos[:-1], sin[:-1], steps)
        for s, out in enumerate(outs):
            same = F.linear(out[:, s:], p["embed"]).argmax(-1) == best[:, s + 1 :]
            hits[s] += same.sum().item()
            seen[s] += same.numel()
    return [h / n for h, n in zip(hits, seen)]


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    kind = "moe" if "moe" in config["model_type"] else "dense"
    lm = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    net = model.Network(lm.config, kind).eval()
    net.lm = lm.eval()
    tensors = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        tensors |= load_file(file)
    net.mtp.load_state_dict({n.removeprefix("mtp."): t.float() for n, t in tensors.items() if n.startswith("mtp.")})
    return net, transformers.AutoTokenizer.from_pretrained(folder)


def overlap(text, work, n=13):
    """-> share of the text's n-grams of words that the training text has"""

    def grams(s):
        words = re.findall(r"\w+", s.lower())
        return [hash(tuple(words[i : i + n])) for i in range(len(words) - n + 1)]

    own = grams(text)
    missing = set(own)
    for path in sorted((work / "train").glob("*.txt.xz")):
        for document in lzma.open(path, "rt").read().split("\0"):
            missing.difference_update(grams(document))
    return sum(g not in missing for g in own) / len(own)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--plan", help="the checkpoint's plan, to ask qwenrt too")
    parser.add_argument("--qwenrt", default="build/bin/qwenrt")
    parser.add_argument("--train", type=pathlib.Path, help="data.py's WORK, for the overlap")
    parser.add_argument("--quick", type=int, default=0, help="look at the first N bytes only")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    text = args.text.read_text()[: args.quick or None]
    size = len(text.encode())
    net, tokenizer = load(args.checkpoint)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    packed = len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)) * 8 / size
    print(f"text: {size} bytes, {len(ids)} tokens, {size / len(ids):.2f} bytes a token")
    print(f"xz -9e: {packed:.4f} bits a byte")
    if args.train:
        print(f"13-grams that training has: {overlap(text, args.train):.3%}")

    counts = watch_experts(net.lm)
    bits = bits_through_transformers(net.lm, ids, size)
    print(f"transformers {transformers.__version__}, f32: {bits:.4f} bits a byte", flush=True)
    for layer, count in enumerate(counts):
        share = count / count.sum() * net.config.num_experts_per_tok
        print(f"layer {layer}: an expert sees {share.min():.2%} to {share.max():.2%} of the tokens")
    if args.plan:
        out = subprocess.run(
            [
                args.qwenrt,
                "perplexity",
                args.plan,
                "--text",
                str(args.text),
                "--window",
                str(WINDOW),
                "--stride",
                str(STRIDE),
                "--json",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        ours = json.loads(out)["bits_per_byte"]
        print(f"qwenrt: {ours:.4f} bits a byte, {ours / bits - 1:+.3%} of transformers'")

    words = text[:SHUFFLED].split()
    plain = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    random.Random(0).shuffle(words)
    mixed = " ".join(words)
    other = tokenizer(mixed, add_special_tokens=False)["input_ids"]
    before, after = (bits_through_transformers(net.lm, t, 1) for t in (plain, other))
    print(
        f"the words shuffled: {(after - before) / len(words):+.2f} bits a word, {after / len(other) - before / len(plain):+.2f} bits a token,"
        f" {(after - before) / len(mixed.encode()):+.2f} bits a byte",
        flush=True,
    )

    said = ", ".join(f"{share:.1%}" for share in drafts(net, ids))
    print(f"MTP drafts that the model would choose, steps 1 to 3: {said}")
    with torch.no_grad():
        net.mtp.fc.weight.copy_(torch.cat(net.mtp.fc.weight.chunk(2, 1)[::-1], 1))
    print(f"with the halves of mtp.fc exchanged, step 1: {drafts(net, ids[:20 * WINDOW], 1)[0]:.1%}")


if __name__ == "__main__":
    sys.exit(main())
