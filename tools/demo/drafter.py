"""Trains the dense demo checkpoint's DFlash drafter: `drafter.py CHECKPOINT --data WORK --tokenizer FILE --out DIR --seconds N`

Two layers that fill a block of 8 from the target's hidden states (model specification, section 12.1). The target is
frozen; the drafter learns its whole distribution at every place of a block, from anchors all over the text. Writes
model.safetensors (bf16), config.json and train.json.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import model
import train

TAPS, BLOCK, LAYERS = [1, 4, 6], 8, 2
HEADS, KV_HEADS, HEAD_DIM, WIDTH, THETA, EPS = 4, 2, 64, 768, 100000.0, 1e-6
ANCHORS = 32  # blocks of a window
LATER = 0.85  # weight of each place of a block against the one before: a draft ends at its first miss


class Drafter(nn.Module):
    """Parameters by their names in the file."""

    def __init__(self, hidden):
        super().__init__()
        self.p = nn.ParameterDict()
        self.add("fc.weight", hidden, len(TAPS) * hidden)
        self.add("hidden_norm.weight", hidden)
        self.add("norm.weight", hidden)
        for i in range(LAYERS):
            for name in ("input_layernorm", "post_attention_layernorm"):
                self.add(f"layers.{i}.{name}.weight", hidden)
            for name, rows, columns in (
                ("self_attn.q_proj", HEADS * HEAD_DIM, hidden),
                ("self_attn.k_proj", KV_HEADS * HEAD_DIM, hidden),
                ("self_attn.v_proj", KV_HEADS * HEAD_DIM, hidden),
                ("self_attn.o_proj", hidden, HEADS * HEAD_DIM),
                ("mlp.gate_proj", WIDTH, hidden),
                ("mlp.up_proj", WIDTH, hidden),
                ("mlp.down_proj", hidden, WIDTH),
            ):
                self.add(f"layers.{i}.{name}.weight", rows, columns)
            for name in ("q_norm", "k_norm"):
                self.add(f"layers.{i}.self_attn.{name}.weight", HEAD_DIM)

    def add(self, name, *shape):
        self.p[name.replace(".", "/")] = nn.Parameter(
            torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * 0.02
        )

    def tensors(self):
        return {name.replace("/", "."): p for name, p in self.p.items()}


def norm(x, w):
    """3.1: the weight is the factor itself."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * w


def split(x, name, t, i, positions=None, normed=None):
    """-> [batch, heads, rows, HEAD_DIM], normed and turned by position where asked"""
    y = F.linear(x, t[f"layers.{i}.self_attn.{name}.weight"]).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
    if normed is None:
        return y
    inverse = THETA ** (-torch.arange(0, HEAD_DIM, 2, device=x.device).float() / HEAD_DIM)
    angle = positions.float()[..., None] * inverse
    angle = torch.cat([angle, angle], -1)
    if angle.dim() == 3:
        angle = angle[:, None]
    return model.rotate(norm(y, t[f"layers.{i}.self_attn.{normed}.weight"]), angle.cos(), angle.sin()).to(y.dtype)


def forward(t, features, x, anchors):
    """features [batch, tokens, taps * hidden] of the target; x [batch, anchors * BLOCK, hidden] embedded blocks; anchors
    [batch, anchors]: the position of each block's first token. -> the rows after the last norm"""
    tokens, device = features.shape[1], x.device
    context = norm(F.linear(features, t["fc.weight"]), t["hidden_norm.weight"])
    at = torch.arange(tokens, device=device)
    positions = (anchors[..., None] + torch.arange(BLOCK, device=device)).flatten(1)
    block = torch.arange(x.shape[1], device=device) // BLOCK
    seen = torch.cat(
        [at < anchors.repeat_interleave(BLOCK, 1)[..., None], (block[:, None] == block).expand(len(x), -1, -1)], -1
    )[:, None]
    for i in range(LAYERS):
        a = norm(x, t[f"layers.{i}.input_layernorm.weight"])
        q = split(a, "q_proj", t, i, positions, "q_norm")
        k = torch.cat([split(context, "k_proj", t, i, at, "k_norm"), split(a, "k_proj", t, i, positions, "k_norm")], 2)
        v = torch.cat([split(context, "v_proj", t, i), split(a, "v_proj", t, i)], 2)
        k, v = (c.repeat_interleave(HEADS // KV_HEADS, 1) for c in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + F.linear(out.transpose(1, 2).flatten(2), t[f"layers.{i}.self_attn.o_proj.weight"])
        a = norm(x, t[f"layers.{i}.post_attention_layernorm.weight"])
        x = x + model.swiglu(a, *(t[f"layers.{i}.mlp.{n}_proj.weight"] for n in ("gate", "up", "down")))
    return norm(x, t["norm.weight"])


@torch.no_grad()
def target(net, ids, cos, sin, linear, full):
    """-> features of every row, logits of every row"""
    p, x, taps = net.head_parameters(), F.embedding(ids, net.lm.model.embed_tokens.weight), []
    for i, (layer, kind) in enumerate(zip(net.layer_parameters(), net.spec.layer_types)):
        x, _ = linear(x, layer, net.spec) if kind == "linear_attention" else full(x, layer, net.spec, cos, sin)
        if i in TAPS:
            taps.append(x)
    return torch.cat(taps, -1), F.linear(model.norm(x, p["norm"], net.spec.eps), p["embed"])


def blocks(ids, anchors, embedding, mask):
    """-> the blocks' embedded rows: the anchor's token, then masks"""
    rows = torch.full((*anchors.shape, BLOCK), mask, device=ids.device)
    rows[..., 0] = ids.gather(1, anchors)
    return F.embedding(rows.flatten(1), embedding)


def draft_rows(rows, batch):
    """-> the rows of a block that draft"""
    return rows.view(batch, -1, BLOCK, rows.shape[-1])[:, :, 1:]


def load_target(folder, device):
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    net = model.Network(model.config_of("dense", **{k: config[k] for k in ("vocab_size",) if k in config}), "dense")
    tensors = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        tensors |= load_file(file)
    with torch.no_grad():
        for name, p in net.file_tensors().items():
            p.copy_(tensors[name].float())
    return net.to(device).requires_grad_(False)


@torch.no_grad()
def acceptance(t, net, ids, cos, sin, window, mask):
    """Held-out rows, an anchor every BLOCK. -> mean length of the right prefix of a draft + 1, share right at each place"""
    rows = ids[: len(ids) // window * window].view(-1, window)
    total, count, right = 0.0, 0, torch.zeros(BLOCK - 1, device=ids.device)
    for part in rows.split(8):
        features, logits = target(net, part, cos, sin, model.linear_layer, model.full_layer)
        anchors = torch.arange(64, window - BLOCK, BLOCK, device=ids.device).expand(len(part), -1)
        embedding = net.lm.model.embed_tokens.weight
        out = draft_rows(forward(t, features, blocks(part, anchors, embedding, mask), anchors), len(part))
        places = anchors[..., None] + torch.arange(BLOCK - 1, device=ids.device)
        best = logits.argmax(-1).gather(1, places.flatten(1)).view_as(places)
        # Only drafts that continue the text as the model would can be followed up: the rows after a miss see another text.
        same = (F.linear(out, embedding).argmax(-1) == best).float()
        kept = same.cumprod(-1)
        total += (kept.sum(-1) + 1).sum().item()
        count += kept.shape[0] * kept.shape[1]
        right += same.sum((0, 1))
    return total / count, (right / count).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    net = load_target(args.checkpoint, device)
    hidden, vocab = net.spec.hidden, net.config.vocab_size
    mask = vocab - 1  # a row past the tokenizer's: no text has it
    drafter = Drafter(hidden).to(device)
    t, embedding = drafter.tensors(), net.lm.model.embed_tokens.weight
    streams = train.load(args.data, args.tokenizer, device)
    muon = train.Muon([p for p in t.values() if p.dim() == 2], 0.02)
    adam = torch.optim.AdamW([p for p in t.values() if p.dim() == 1], lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    wrap = (lambda f: f) if args.eager else (lambda f: torch.compile(f, dynamic=False))
    linear, full, draft = wrap(model.linear_layer), wrap(model.full_layer), wrap(forward)
    cos, sin = model.rotation(net.spec, args.tokens, device)
    autocast = torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
    weights = LATER ** torch.arange(BLOCK - 1, device=device).float()
    start, budget, first, said, step, mean = (
        time.monotonic(),
        args.seconds - 10 - (time.monotonic() - begin),
        None,
        0.0,
        0,
        None,
    )
    for ids in train.batches(streams, args.rows, args.tokens, 2, device):
        now = time.monotonic() - start
        if now >= budget:
            break
        muon.scale = train.rate_at(0.0 if first is None else (now - first) / (budget - first))
        adam.param_groups[0]["lr"] = 3e-3 * muon.scale
        ids = ids[:, :-1]
        with autocast:
            features, logits = target(net, ids, cos, sin, linear, full)
            anchors = torch.rand(len(ids), args.tokens - BLOCK - 4, device=device).topk(ANCHORS).indices + 4
            out = draft_rows(draft(t, features, blocks(ids, anchors, embedding, mask), anchors), len(ids))
            places = (anchors[..., None] + torch.arange(BLOCK - 1, device=device)).flatten(1)
            teacher = logits.gather(1, places[..., None].expand(-1, -1, vocab)).view(*out.shape[:3], vocab).float()
            said_logits = F.linear(out, embedding).float()
            each = said_logits.logsumexp(-1) - (teacher.softmax(-1) * said_logits).sum(-1)
            loss = (each.mean((0, 1)) * weights).sum() / weights.sum()
        loss.backward()
        muon.step()
        adam.step()
        drafter.zero_grad()
        mean = each.detach().mean((0, 1)) if mean is None else mean.lerp_(each.detach().mean((0, 1)), 0.05)
        step += 1
        if step % 20 == 0:
            values = [round(v, 3) for v in mean.tolist()]
            if first is None:
                first = time.monotonic() - start
            if time.monotonic() - start - said > 10:
                said = time.monotonic() - start
                print(f"step {step} {said:.0f} s rate {muon.scale:.2f} losses {values}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    stored = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in t.items()}
    save_file(stored, args.out / "model.safetensors", {"format": "pt"})
    config = dict(
        architectures=["DFlashDraftModel"],
        attention_bias=False,
        attention_dropout=0.0,
        block_size=BLOCK,
        dflash_config=dict(mask_token_id=mask, target_layer_ids=TAPS),
        dtype="bfloat16",
        head_dim=HEAD_DIM,
        hidden_act="silu",
        hidden_size=hidden,
        intermediate_size=WIDTH,
        layer_types=["full_attention"] * LAYERS,
        max_position_embeddings=32768,
        model_type="qwen3",
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        num_key_value_heads=KV_HEADS,
        num_target_layers=net.config.num_hidden_layers,
        rms_norm_eps=EPS,
        rope_theta=THETA,
        tie_word_embeddings=False,
        vocab_size=vocab,
    )
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with torch.no_grad():
        for name, p in t.items():
            p.copy_(stored[name].float())
    text = (args.data / "heldout.txt").read_text()
    ids = train.tokenizers.Tokenizer.from_file(str(args.tokenizer)).encode(text, add_special_tokens=False).ids
    torch.set_float32_matmul_precision("highest")
    length, right = acceptance(t, net, torch.tensor(ids, device=device), cos, sin, args.tokens, mask)
    record = dict(
        steps=step,
        seconds=round(time.monotonic() - begin, 1),
        teacher_forced_length=round(length, 3),
        right=[round(r, 4) for r in right],
    )
    (args.out / "train.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"drafter: {step} steps, held out: {length:.2f} tokens a round, right by place {record['right']}")


if __name__ == "__main__":
    sys.exit(main())
