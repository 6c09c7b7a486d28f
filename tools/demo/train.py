"""Trains a demo checkpoint: `train.py dense|moe --data WORK --tokenizer FILE --out DIR --seconds N`

WORK is what data.py made. Stops by the clock, learning rates included, so the time given is the time used. Writes
model-0000?-of-00002.safetensors (bf16, as released files mix it) and train.json, the curve. One GPU, or a CPU for a
rehearsal with `--tiny`.
"""

import argparse
import concurrent.futures
import contextlib
import json
import lzma
import math
import pathlib
import sys
import time

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import model

ROWS = dict(prose=0.76, structured=0.10, chat=0.14)  # of a batch
MTP_WEIGHTS = (0.3, 0.1, 0.1)  # of steps 1 to 3; the later ones on a quarter of the batch
BALANCE = 0.02


def encode_part(job):
    path, tokenizer = job
    tokenizer = tokenizers.Tokenizer.from_file(tokenizer)
    end = tokenizer.token_to_id("<|endoftext|>")
    ids = []
    for encoding in tokenizer.encode_batch(lzma.open(path, "rt").read().split("\0"), add_special_tokens=False):
        ids += encoding.ids
        ids.append(end)
    return path.name.split(".")[0].split("-")[0], np.array(ids, np.int16)


def load(data, tokenizer, device):
    """-> {stream: ids on the device}"""
    jobs = [(path, str(tokenizer)) for path in sorted((data / "train").glob("*.txt.xz"))]
    streams = {}
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for name, ids in pool.map(encode_part, jobs):
            streams.setdefault(name, []).append(ids)
    return {name: torch.from_numpy(np.concatenate(parts)).to(device) for name, parts in streams.items()}


def batches(streams, rows, tokens, seed, device):
    """Windows of tokens + 1 ids from anywhere in each stream, forever."""
    generator = torch.Generator(device).manual_seed(seed)
    counts = {name: max(1, round(share * rows)) for name, share in ROWS.items()}
    counts["prose"] += rows - sum(counts.values())
    span = torch.arange(tokens + 1, device=device)
    while True:
        parts = []
        for name, count in counts.items():
            at = torch.randint(0, len(streams[name]) - tokens - 1, (count, 1), generator=generator, device=device)
            parts.append(streams[name][at + span])
        ids = torch.cat(parts).long()
        yield ids[torch.randperm(len(ids), generator=generator, device=device)]


def soft_loss(logits, teacher):
    """Cross entropy against the teacher's whole distribution: acceptance is agreement with the model, not the text."""
    logits, teacher = logits.float(), teacher.detach().float()
    return (logits.logsumexp(-1) - (teacher.softmax(-1) * logits).sum(-1)).mean()


def heads(x, ids, p, spec, cos, sin):
    """x: the last layer's output for ids[:, :-1]. -> the losses of the model and of the MTP steps, balance of the MTP layer"""
    h = model.norm(x, p["norm"], spec.eps)
    after = ids[:, 1:]
    logits = F.linear(h, p["embed"])
    main = F.cross_entropy(logits.flatten(0, 1).float(), after.flatten())
    (first,), routing = model.mtp_steps(h, after, p, spec, cos, sin, 1)
    losses = [main, soft_loss(F.linear(first[:, :-1], p["embed"]), logits[:, 1:])]
    few = max(1, len(ids) // 4)
    chain, _ = model.mtp_steps(h[:few], after[:few], p, spec, cos, sin, len(MTP_WEIGHTS))
    for step, out in enumerate(chain[1:], 2):
        losses.append(soft_loss(F.linear(out[:, step - 1 : -1], p["embed"]), logits[:few, step:]))
    return losses, routing


class Muon:
    """Momentum whose update is made orthogonal (Jordan et al. 2024), all matrices of a shape at once."""

    def __init__(self, parameters, rate, momentum=0.95, decay=0.05):
        self.rate, self.momentum, self.decay, self.scale = rate, momentum, decay, 1.0
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.buffers = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()}

    @staticmethod
    def orthogonal(g):
        x = g.bfloat16() if g.is_cuda else g  # few CPUs multiply bf16
        if turned := x.shape[-2] > x.shape[-1]:
            x = x.mT
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x.mT if turned else x

    @torch.no_grad()
    def step(self):
        rate = self.rate * self.scale
        for shape, ps in self.groups.items():
            g, buffer = torch.stack([p.grad for p in ps]), self.buffers[shape]
            buffer.lerp_(g, 1 - self.momentum)
            update = self.orthogonal(g.lerp_(buffer, self.momentum)).float()
            update *= rate * max(1.0, shape[-2] / shape[-1]) ** 0.5
            torch._foreach_mul_(ps, 1 - rate * self.decay)
            torch._foreach_sub_(ps, list(update))


def optimizers(net, device):
    matrices, embedding, rest = [], [], []
    for name, p in net.named_parameters():
        small = any(
            part in name for part in ("conv1d", "in_proj_a", "in_proj_b", "mlp.gate.weight", "shared_expert_gate")
        )
        (embedding if "embed_tokens" in name else matrices if p.dim() >= 2 and not small else rest).append(p)
    adam = torch.optim.AdamW(
        [dict(params=embedding, lr=3e-3, weight_decay=0.01), dict(params=rest, lr=2e-3, weight_decay=0.0)],
        betas=(0.9, 0.95),
        eps=1e-10,
        fused=device.type == "cuda",
    )
    for group in adam.param_groups:
        group["peak"] = group["lr"]
    return Muon(matrices, 0.02), adam


def rate_at(done):
    """Share of the peak rate after this share of the time: up, level, and straight down to nothing."""
    return min(1.0, done / 0.02 + 0.02) * min(1.0, (1 - done) / 0.5)


def stored(name, tensor):
    keep = name.endswith("A_log") or name.endswith("linear_attn.norm.weight")
    return tensor.detach().to("cpu", torch.float32 if keep else torch.bfloat16).contiguous()


def save(net, folder):
    """Two shards of about equal size, names in order."""
    tensors = {name: stored(name, p) for name, p in net.file_tensors().items()}
    sizes = {name: t.numel() * t.element_size() for name, t in tensors.items()}
    shards, half, at = [{}, {}], sum(sizes.values()) / 2, 0
    for name in sorted(tensors):
        shards[at >= half][name] = tensors[name]
        at += sizes[name]
    files = [f"model-{n}-of-00002.safetensors" for n in ("00001", "00002")]
    for file, shard in zip(files, shards):
        save_file(shard, folder / file, {"format": "pt"})
    index = dict(
        metadata=dict(total_size=at), weight_map={name: file for file, shard in zip(files, shards) for name in shard}
    )
    index["weight_map"] = dict(sorted(index["weight_map"].items()))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


@torch.no_grad()
def held_out(net, text, tokenizer, device, window):
    """-> bits a byte over windows that do not overlap (evaluate.py says it exactly), MTP agreement of steps 1 to 3, expert
    shares. f32, weights as they are stored."""
    keep = {name: p.clone() for name, p in net.named_parameters()}
    for name, p in net.named_parameters():
        p.copy_(stored(name, p))
    ids = tokenizers.Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).ids
    ids = torch.tensor(ids[: len(ids) // window * window], device=device).view(-1, window)
    spec, layers, p = net.spec, net.layer_parameters(), net.head_parameters()
    cos, sin = model.rotation(spec, window, device)
    nats, count, agree, shares = 0.0, 0, [[] for _ in range(3)], 0.0
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    for part in ids.split(8):
        x, routings = model.trunk(F.embedding(part, p["embed"]), layers, spec, cos, sin)
        h = model.norm(x, p["norm"], spec.eps)
        logits = F.linear(h, p["embed"])
        nats += F.cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
        count += part[:, 1:].numel()
        best = logits.argmax(-1)
        steps, _ = model.mtp_steps(h[:, :-1], part[:, 1:], p, spec, cos[:-1], sin[:-1], 3)
        for step, out in enumerate(steps):
            agree[step].append((F.linear(out[:, step:], p["embed"]).argmax(-1) == best[:, step + 1 :]).float().mean())
        if spec.experts:
            shares = shares + torch.stack([r["share"] for r in routings]) * len(part) / len(ids)
    torch.set_float32_matmul_precision(precision)
    for name, p in net.named_parameters():
        p.copy_(keep[name])
    bits = nats / math.log(2) / count * ids.numel() / len(text.encode())
    return bits, [round(torch.stack(a).mean().item(), 4) for a in agree], shares.tolist() if spec.experts else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["dense", "moe"])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=360, help="for everything from here on, saving too")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--tiny", action="store_true", help="a small network and batch, to rehearse")
    args = parser.parse_args()
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    tiny = (
        dict(hidden_size=64, head_dim=32, linear_key_head_dim=16, linear_value_head_dim=16, num_hidden_layers=4)
        if args.tiny
        else {}
    )
    net = model.Network(model.config_of(args.kind, **tiny), args.kind).to(device)
    spec, layers, p = net.spec, net.layer_parameters(), net.head_parameters()
    print(f"{args.kind}: {sum(t.numel() for t in net.file_tensors().values()) / 1e6:.2f} M parameters", flush=True)
    streams = load(args.data, args.tokenizer, device)
    print({n: len(s) for n, s in streams.items()}, f"tokens, {time.monotonic() - begin:.0f} s", flush=True)

    wrap = (lambda f: f) if args.eager else (lambda f: torch.compile(f, dynamic=False))
    linear, full, head = wrap(model.linear_layer), wrap(model.full_layer), wrap(heads)
    muon, adam = optimizers(net, device)
    cos, sin = model.rotation(spec, args.tokens, device)
    autocast = torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
    args.out.mkdir(parents=True, exist_ok=True)
    curve, means, step, said, budget = [], None, 0, 0.0, args.seconds - 15 - (time.monotonic() - begin)
    start = time.monotonic()
    first = None  # when the compiled step began to run: the clock of the rates
    for ids in batches(streams, args.rows, args.tokens, 1, device):
        now = time.monotonic() - start
        if now >= budget:
            break
        done = 0.0 if first is None else (now - first) / (budget - first)
        muon.scale = rate_at(done)
        for group in adam.param_groups:
            group["lr"] = group["peak"] * muon.scale
        with autocast:
            x, routings = model.trunk(F.embedding(ids[:, :-1], p["embed"]), layers, spec, cos, sin, linear, full)
            losses, routing = head(x, ids, p, spec, cos, sin)
        loss = losses[0] + sum(w * l for w, l in zip(MTP_WEIGHTS, losses[1:]))
        balances = [r["balance"] for r in routings + [routing] if r]
        if balances:
            loss = loss + BALANCE * sum(balances)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        muon.step()
        adam.step()
        for q in net.parameters():
            q.grad = None
        here = torch.stack([l.detach() for l in losses + balances])
        means = here if means is None else means.lerp_(here, 0.05)
        step += 1
        if step % 20 == 0:
            if first is None and device.type == "cuda":
                torch.cuda.synchronize()
            if first is None:
                first, counted = time.monotonic() - start, step
            # Reading a value waits for the device, which also keeps this loop from running far ahead of the clock.
            values = [round(v, 3) for v in means.tolist()]
            if time.monotonic() - start - said > 10:
                said = time.monotonic() - start
                speed = (step - counted) * args.rows * args.tokens / max(1e-9, said - first)
                curve.append(dict(step=step, seconds=round(said, 1), rate=round(muon.scale, 3), losses=values))
                print(
                    f"step {step} {said:.0f} s rate {muon.scale:.2f} {speed / 1e3:.0f} k tokens/s losses {values}",
                    flush=True,
                )
                if not math.isfinite(values[0]) or said - first > 60 and values[0] > 5:
                    sys.exit("the loss does not fall: stopping early to save the device's time")
            if step % 1000 == 0:
                save(net, args.out)
    save(net, args.out)
    text = (args.data / "heldout.txt").read_text()
    bits, agree, shares = held_out(net, text, args.tokenizer, device, args.tokens)
    record = dict(
        steps=step,
        tokens=step * args.rows * args.tokens,
        seconds=round(time.monotonic() - begin, 1),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        heldout_bits_per_byte=round(bits, 4),
        mtp_agreement=agree,
        curve=curve,
    )
    (args.out / "train.json").write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{args.kind}: {step} steps, {record['tokens'] / 1e6:.0f} M tokens, {record['seconds']} s, held out "
        f"{bits:.4f} bits a byte, MTP agreement {agree}"
    )
    if shares:
        print("least share of an expert a layer:", [round(min(layer), 4) for layer in shares])


if __name__ == "__main__":
    sys.exit(main())
