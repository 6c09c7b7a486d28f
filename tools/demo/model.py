"""The demo checkpoints' networks: transformers' own classes hold the parameters, this file trains them fast.

`Network` is `Qwen3_5ForCausalLM` or `Qwen3_5MoeForCausalLM` with the MTP head that transformers lacks, its parameters
named as in real checkpoints (model specification, sections 11 and 13). The functions below are the same arithmetic
over those parameters, written for a compiler and a batch: no cache, no padding, and delta rule by chunks whose
triangular systems are all inverted at once. `test_demo.py` holds them against transformers' own forward.

Shapes: x [batch, tokens, hidden]; `p` is one layer's parameters by their name inside the layer.
"""

import importlib
import math

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64  # tokens of a delta rule chunk; section 6.6 allows any number


def config_of(kind, **changes):
    """The configuration of the `dense` checkpoint or of its sparse `moe` sister."""
    shared = dict(
        vocab_size=8192,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=4,
        linear_num_value_heads=8,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        linear_conv_kernel_dim=4,
        hidden_act="silu",
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_cache=True,
        attention_bias=False,
        attention_dropout=0.0,
        initializer_range=0.02,
        pad_token_id=None,
        bos_token_id=None,
        rope_parameters=dict(
            rope_type="default",
            rope_theta=100000.0,
            partial_rotary_factor=0.25,
            mrope_interleaved=True,
            mrope_section=[3, 3, 2],
        ),
    )
    own = {
        "dense": dict(num_hidden_layers=8, intermediate_size=768),
        "moe": dict(
            num_hidden_layers=4,
            num_experts=16,
            num_experts_per_tok=4,
            moe_intermediate_size=96,
            shared_expert_intermediate_size=256,
        ),
    }[kind]
    _, config = classes(kind, "Config")
    fields = shared | own | changes
    fields["layer_types"] = [
        "full_attention" if i % 4 == 3 else "linear_attention" for i in range(fields["num_hidden_layers"])
    ]
    return config(**fields)


def classes(kind, name):
    """-> the modeling module and its class for this kind: name is Config, ForCausalLM, DecoderLayer or RMSNorm"""
    stem, room = ("Qwen3_5", "qwen3_5") if kind == "dense" else ("Qwen3_5Moe", "qwen3_5_moe")
    module = importlib.import_module(f"transformers.models.{room}.modeling_{room}")
    return module, getattr(module, stem + ("TextConfig" if name == "Config" else name))


class MtpHead(nn.Module):
    """Section 11. Its decoder layer is transformers' own full attention layer of the same kind."""

    def __init__(self, config, kind):
        super().__init__()
        norm = classes(kind, "RMSNorm")[1]
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.pre_fc_norm_hidden = norm(config.hidden_size, eps=config.rms_norm_eps)
        self.pre_fc_norm_embedding = norm(config.hidden_size, eps=config.rms_norm_eps)
        self.norm = norm(config.hidden_size, eps=config.rms_norm_eps)
        full = config.layer_types.index("full_attention")
        self.layers = nn.ModuleList([classes(kind, "DecoderLayer")[1](config, full)])


class Network(nn.Module):
    def __init__(self, config, kind):
        super().__init__()
        self.config, self.kind = config, kind
        self.lm = classes(kind, "ForCausalLM")[1](config)
        self.mtp = MtpHead(config, kind)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.dim() >= 2 and "conv1d" not in name:
                    p.normal_(0.0, config.initializer_range)
                elif name.endswith("dt_bias"):  # time steps from 1e-3 to 1e-1, as Mamba draws them
                    dt = torch.exp(torch.rand_like(p) * math.log(100) + math.log(1e-3))
                    p.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.spec = Spec(config)

    def layer_parameters(self):
        """-> one dict a decoder layer"""
        return [dict(layer.named_parameters()) for layer in self.lm.model.layers]

    def head_parameters(self):
        """-> embedding, final norm and the MTP head, by their names in the file"""
        own = {"mtp." + name: p for name, p in self.mtp.named_parameters()}
        return own | {"embed": self.lm.model.embed_tokens.weight, "norm": self.lm.model.norm.weight}

    def file_tensors(self):
        """-> every tensor under its name in a checkpoint; tied lm_head left out"""
        tensors = {name: p for name, p in self.lm.named_parameters() if name != "lm_head.weight"}
        return tensors | {"mtp." + name: p for name, p in self.mtp.named_parameters()}


class Spec:
    """The sizes the functions below need; hashable by identity, constant for a compiler."""

    def __init__(self, c):
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.key_heads, self.value_heads = c.linear_num_key_heads, c.linear_num_value_heads
        self.key_dim, self.value_dim, self.width = (
            c.linear_key_head_dim,
            c.linear_value_head_dim,
            c.linear_conv_kernel_dim,
        )
        self.eps, self.layer_types, self.hidden = c.rms_norm_eps, c.layer_types, c.hidden_size
        self.experts, self.top_k = getattr(c, "num_experts", 0), getattr(c, "num_experts_per_tok", 0)
        self.rotary = int(c.head_dim * c.rope_parameters["partial_rotary_factor"])
        self.theta = c.rope_parameters["rope_theta"]


def rotation(spec, tokens, device):
    """-> cos, sin [tokens, rotary]; section 3.4, and 3.5 for text"""
    inverse = spec.theta ** (-torch.arange(0, spec.rotary, 2, device=device).float() / spec.rotary)
    angle = torch.arange(tokens, device=device).float()[:, None] * inverse
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


# 3.2
def norm(x, w, eps):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (1 + w)


# 3.4
def rotate(x, cos, sin):
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    a, b = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-b, a], -1) * sin, rest], -1)


def heads_of(x, p, spec, cos, sin):
    """-> q [batch, heads, tokens, dim], k, v [batch, kv_heads, tokens, dim], gate [batch, tokens, heads * dim]"""
    batch, tokens, _ = x.shape
    q, gate = F.linear(x, p["self_attn.q_proj.weight"]).view(batch, tokens, spec.heads, -1).chunk(2, -1)
    k = F.linear(x, p["self_attn.k_proj.weight"]).view(batch, tokens, spec.kv_heads, -1)
    v = F.linear(x, p["self_attn.v_proj.weight"]).view(batch, tokens, spec.kv_heads, -1)
    q = rotate(norm(q, p["self_attn.q_norm.weight"], spec.eps).transpose(1, 2), cos, sin)
    k = rotate(norm(k, p["self_attn.k_norm.weight"], spec.eps).transpose(1, 2), cos, sin)
    return q.to(v.dtype), k.to(v.dtype), v.transpose(1, 2), gate.reshape(batch, tokens, -1)


def spread(k, v, spec):
    """Every query head's own copy."""
    return (t.repeat_interleave(spec.heads // spec.kv_heads, 1) for t in (k, v))


def attention_out(out, gate, p):
    batch, _, tokens, _ = out.shape
    out = out.transpose(1, 2).reshape(batch, tokens, -1) * torch.sigmoid(gate)
    return F.linear(out, p["self_attn.o_proj.weight"])


class UnitLowerInverse(torch.autograd.Function):
    """(1 + a)^-1 for strictly lower triangular a [..., n, n], n a power of two.

    Inverts blocks of 1, 2, 4, ... on the diagonal: [A 0; C B]^-1 = [A' 0; -B'CA' B']. Exact, and batched where a
    triangular solve is not. Backward from the inverse alone: da = -t^T dt t^T.
    """

    @staticmethod
    def forward(ctx, a):
        n = a.shape[-1]
        i = torch.arange(n, device=a.device)
        t = torch.eye(n, dtype=a.dtype, device=a.device).expand_as(a)
        size = 1
        while size < n:
            block = i // size
            corner = (block[:, None] % 2 == 1) & (block[None] == block[:, None] - 1)
            step = a * corner
            t = t - (step if size == 1 else t @ step @ t)
            size *= 2
        ctx.save_for_backward(t)
        return t

    @staticmethod
    def backward(ctx, dt):
        (t,) = ctx.saved_tensors
        return -(t.mT @ dt.contiguous() @ t.mT)


# 6.3 to 6.6
def delta_rule(q, k, v, g, beta):
    """q, k [batch, tokens, key_heads, dk], v [batch, tokens, value_heads, dv], g, beta [batch, tokens, value_heads],
    all f32; tokens a multiple of CHUNK. -> [batch, tokens, value_heads, dv]"""
    batch, tokens, key_heads, dk = q.shape
    heads, dv, chunks = v.shape[2], v.shape[3], tokens // CHUNK
    q = q * torch.rsqrt(q.square().sum(-1, keepdim=True) + 1e-6) * dk**-0.5
    k = k * torch.rsqrt(k.square().sum(-1, keepdim=True) + 1e-6)

    def split(x, size):  # -> [batch * heads, chunks, CHUNK, size]
        x = x.unsqueeze(3).expand(-1, -1, -1, heads // x.shape[2], -1)
        return x.permute(0, 2, 3, 1, 4).reshape(batch * heads, chunks, CHUNK, size)

    q, k, v = split(q, dk), split(k, dk), split(v, dv)
    g = g.transpose(1, 2).reshape(batch * heads, chunks, CHUNK).cumsum(-1)
    beta = beta.transpose(1, 2).reshape(batch * heads, chunks, CHUNK, 1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    decay = torch.where(lower, g[..., :, None] - g[..., None, :], -math.inf).exp()
    inverse = UnitLowerInverse.apply(((k * beta) @ k.mT * decay).tril(-1))
    u = inverse @ (v * beta)
    w = inverse @ (k * beta * g.exp()[..., None])
    reach = k * (g[..., -1:] - g).exp()[..., None]
    keep = g[..., -1].exp()[..., None, None]
    state, states = torch.zeros(batch * heads, dk, dv, device=q.device, dtype=q.dtype), []
    new = []
    for c in range(chunks):
        states.append(state)
        new.append(torch.baddbmm(u[:, c], w[:, c], state, alpha=-1))
        state = torch.baddbmm(keep[:, c] * state, reach[:, c].mT, new[-1])
    new, states = torch.stack(new, 1), torch.stack(states, 1)
    out = (q * g.exp()[..., None]) @ states + (q @ k.mT * decay) @ new
    return out.view(batch, heads, tokens, dv).transpose(1, 2)


# 6
def delta_net(x, p, spec):
    batch, tokens, _ = x.shape
    u = F.linear(x, p["linear_attn.in_proj_qkv.weight"])
    z = F.linear(x, p["linear_attn.in_proj_z.weight"]).view(batch, tokens, spec.value_heads, spec.value_dim)
    b, a = F.linear(x, p["linear_attn.in_proj_b.weight"]), F.linear(x, p["linear_attn.in_proj_a.weight"])
    w, past = p["linear_attn.conv1d.weight"][:, 0], F.pad(u, (0, 0, spec.width - 1, 0))
    u = F.silu(sum(past[:, j : j + tokens].float() * w[:, j] for j in range(spec.width)))
    q, k, v = u.split([spec.key_heads * spec.key_dim] * 2 + [spec.value_heads * spec.value_dim], -1)
    q, k = (t.reshape(batch, tokens, spec.key_heads, spec.key_dim) for t in (q, k))
    v = v.reshape(batch, tokens, spec.value_heads, spec.value_dim)
    g = -p["linear_attn.A_log"].exp() * F.softplus(a.float() + p["linear_attn.dt_bias"])
    with torch.autocast(x.device.type, enabled=False):
        out = delta_rule(q, k, v, g, torch.sigmoid(b.float()))
        out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + spec.eps) * p["linear_attn.norm.weight"]
        out = out * F.silu(z.float())
    return F.linear(out.reshape(batch, tokens, -1), p["linear_attn.out_proj.weight"])


def swiglu(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


# 3.7 to 3.10
def ffn(x, p, spec):
    """-> output, {balance: the loss that evens out the experts, share [experts]: tokens each got} of a sparse layer"""
    if not spec.experts:
        return swiglu(x, *(p[f"mlp.{n}_proj.weight"] for n in ("gate", "up", "down"))), None
    with torch.autocast(x.device.type, enabled=False):
        probs = F.linear(x.float(), p["mlp.gate.weight"]).softmax(-1)
    chosen = torch.zeros_like(probs).scatter(-1, probs.topk(spec.top_k, -1).indices, 1.0)
    weight = probs * chosen
    weight = weight / weight.sum(-1, keepdim=True)
    share = chosen.flatten(0, -2).mean(0)
    balance = spec.experts / spec.top_k * (share.detach() * probs.flatten(0, -2).mean(0)).sum()
    # All experts see all tokens: four times the arithmetic, and no gather.
    gate, up = torch.einsum("bth,eih->btei", x, p["mlp.experts.gate_up_proj"]).chunk(2, -1)
    y = torch.einsum("btei,ehi->bth", F.silu(gate) * up * weight[..., None], p["mlp.experts.down_proj"])
    alone = swiglu(x, *(p[f"mlp.shared_expert.{n}_proj.weight"] for n in ("gate", "up", "down")))
    y = y + torch.sigmoid(F.linear(x, p["mlp.shared_expert_gate.weight"])) * alone
    return y, dict(balance=balance, share=share)


def add_ffn(x, p, spec):
    y, routing = ffn(norm(x, p["post_attention_layernorm.weight"], spec.eps), p, spec)
    return x + y, routing


def linear_layer(x, p, spec):
    return add_ffn(x + delta_net(norm(x, p["input_layernorm.weight"], spec.eps), p, spec), p, spec)


def full_layer(x, p, spec, cos, sin):
    q, k, v, gate = heads_of(norm(x, p["input_layernorm.weight"], spec.eps), p, spec, cos, sin)
    out = F.scaled_dot_product_attention(q, *spread(k, v, spec), is_causal=True)
    return add_ffn(x + attention_out(out, gate, p), p, spec)


def mtp_steps(h, ids, p, spec, cos, sin, steps):
    """Section 11, teacher forced. Row r of step 1 reads h[r] and ids[r] (the token after r); row r of step s reads what
    step s-1 left in row r-1, and attends, as a chain does, to step 1's rows up to r-s+1 and to one row of each later step.
    h [batch, tokens, hidden] after the final norm. -> per step the rows after mtp.norm; routing of step 1"""
    layer = {name.removeprefix("mtp.layers.0."): t for name, t in p.items() if name.startswith("mtp.layers.0.")}
    tokens = h.shape[1]
    embedding = norm(F.embedding(ids, p["embed"]), p["mtp.pre_fc_norm_embedding.weight"], spec.eps)
    outs, keys, values, first = [], [], [], None
    for step in range(1, steps + 1):
        hidden = norm(h, p["mtp.pre_fc_norm_hidden.weight"], spec.eps)
        x = F.linear(torch.cat([embedding, hidden], -1), p["mtp.fc.weight"])
        q, k, v, gate = heads_of(norm(x, layer["input_layernorm.weight"], spec.eps), layer, spec, cos, sin)
        k, v = spread(k, v, spec)
        if step == 1:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            keys, values = [k], [v]
        else:
            keys = [keys[0]] + [past(t) for t in keys[1:]] + [k]
            values = [values[0]] + [past(t) for t in values[1:]] + [v]
            seen = torch.ones(tokens, tokens, dtype=torch.bool, device=h.device).tril(1 - step)
            scores = torch.where(seen, (q @ keys[0].mT).float(), -math.inf)
            own = torch.stack([(q * t).float().sum(-1) for t in keys[1:]], -1)
            weights = (torch.cat([scores, own], -1) * spec.head_dim**-0.5).softmax(-1)
            out = weights[..., :tokens].to(v.dtype) @ values[0]
            out = out + sum(weights[..., tokens + i, None] * t for i, t in enumerate(values[1:]))
        y, routing = add_ffn(x + attention_out(out, gate, layer), layer, spec)
        first = first or routing
        outs.append(norm(y, p["mtp.norm.weight"], spec.eps))
        h = past(outs[-1])
    return outs, first


def past(x):
    """Rows one later: row r holds what row r-1 held, row 0 zeros."""
    return F.pad(x, (0, 0, 1, 0))[..., :-1, :]


def trunk(x, layers, spec, cos, sin, linear=linear_layer, full=full_layer):
    """-> the last layer's output and the routing of each layer; `linear` and `full` may be compiled"""
    routings = []
    for p, kind in zip(layers, spec.layer_types):
        x, routing = linear(x, p, spec) if kind == "linear_attention" else full(x, p, spec, cos, sin)
        routings.append(routing)
    return x, routings
