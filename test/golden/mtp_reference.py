"""A plain torch writing of the model specification: decoder layers, and the MTP head that transformers leaves out.

transformers is the judge of everything it implements. It skips `mtp.*`, so the MTP goldens come from here, and this
code is itself a checked witness: make_goldens.py runs the same functions over every stored checkpoint in f64 and
compares logits and recurrent states with transformers'. Reads tensors by the names of the file, whichever form the
experts have. No batch, no cache: x is [tokens, hidden], and a draft chain runs the whole sequence again.
Section numbers are those of the model specification.
"""

import math

import torch


def silu(x):
    return x * torch.sigmoid(x)


def softmax(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


class Reference:
    """One checkpoint: `config` is the flat text config, `tensors` the file, `prefix` what precedes `layers.`."""

    def __init__(self, config, tensors, prefix="model.", dtype=torch.float64):
        self.c, self.prefix, self.dtype = config, prefix, dtype
        self.t = {name: t.to(dtype) for name, t in tensors.items()}
        self.hybrid = config["model_type"].startswith(("qwen3_next", "qwen3_5"))
        self.eps = config["rms_norm_eps"]
        rope = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {}),
                **(config.get("rope_parameters") or {})}
        default = 0.25 if self.hybrid else 1.0
        fraction = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", default))
        self.rotary_dim = int(config["head_dim"] * fraction)
        self.inv_freq, self.rope_scale = self._inv_freq(rope)

    def layer_type(self, i):
        types = self.c.get("layer_types")
        if types:
            return types[i]
        if not self.hybrid:
            return "full_attention"
        return "full_attention" if (i + 1) % self.c.get("full_attention_interval", 4) == 0 else "linear_attention"

    # 3.4
    def _inv_freq(self, rope):
        rd, theta = self.rotary_dim, rope["rope_theta"]
        plain = theta ** (-torch.arange(0, rd, 2, dtype=torch.float64) / rd)
        if rope.get("rope_type", "default") == "default":
            return plain, 1.0
        assert rope["rope_type"] == "yarn"
        original, factor = rope["original_max_position_embeddings"], rope["factor"]

        def dim_of(rotations):
            return rd * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

        low = max(math.floor(dim_of(rope.get("beta_fast", 32))), 0)
        high = min(math.ceil(dim_of(rope.get("beta_slow", 1))), rd - 1)
        ramp = ((torch.arange(rd // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
        return plain * (1 - ramp) + plain / factor * ramp, rope.get("attention_factor") or 0.1 * math.log(factor) + 1

    def rope(self, x):
        tokens, half = x.shape[0], self.rotary_dim // 2
        angle = torch.arange(tokens, dtype=torch.float64)[:, None] * self.inv_freq
        cos = (angle.cos() * self.rope_scale).to(self.dtype)[:, None]
        sin = (angle.sin() * self.rope_scale).to(self.dtype)[:, None]
        a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    # 3.1, 3.2
    def norm(self, x, name, zero_centred=None):
        w = self.t[name]
        if self.hybrid if zero_centred is None else zero_centred:
            w = 1 + w
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * w

    def linear(self, x, name):
        return x @ self.t[name + ".weight"].T

    # 3.6, 3.11
    def attention(self, x, p, window=None):
        c, tokens, dim = self.c, x.shape[0], self.c["head_dim"]
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        q = self.linear(x, p + "q_proj")
        if self.hybrid:
            q = q.view(tokens, heads, 2 * dim)
            q, gate = q[..., :dim], q[..., dim:]
        q = self.rope(self.norm(q.reshape(tokens, heads, dim), p + "q_norm.weight"))
        k = self.rope(self.norm(self.linear(x, p + "k_proj").view(tokens, kv_heads, dim), p + "k_norm.weight"))
        v = self.linear(x, p + "v_proj").view(tokens, kv_heads, dim)
        age = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
        visible = (age >= 0) if window is None else (age >= 0) & (age < window)
        out = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            scores = (q[:, h] @ k[:, g].T * dim ** -0.5).masked_fill(~visible, -math.inf)
            out.append(softmax(scores) @ v[:, g])
        out = torch.stack(out, 1)
        if self.hybrid:
            out = out * torch.sigmoid(gate)
        return self.linear(out.reshape(tokens, -1), p + "o_proj")

    # 6.1
    def delta_inputs(self, x, p):
        """-> u [tokens, channels] before the convolution, z [tokens, Hv, dv], b and a [tokens, Hv]"""
        c, tokens = self.c, x.shape[0]
        hk, hv = c["linear_num_key_heads"], c["linear_num_value_heads"]
        dk, dv, r = c["linear_key_head_dim"], c["linear_value_head_dim"], hv // hk
        if p + "in_proj_qkv.weight" in self.t:
            return (self.linear(x, p + "in_proj_qkv"), self.linear(x, p + "in_proj_z").view(tokens, hv, dv),
                    self.linear(x, p + "in_proj_b"), self.linear(x, p + "in_proj_a"))
        q, k, v, z = self.linear(x, p + "in_proj_qkvz").view(tokens, hk, -1).split([dk, dk, r * dv, r * dv], -1)
        b, a = self.linear(x, p + "in_proj_ba").view(tokens, hk, 2 * r).split([r, r], -1)
        u = torch.cat([q.reshape(tokens, -1), k.reshape(tokens, -1), v.reshape(tokens, -1)], -1)
        return u, z.reshape(tokens, hv, dv), b.reshape(tokens, hv), a.reshape(tokens, hv)

    # 6.2 to 6.7
    def gated_delta_net(self, x, p):
        """-> output [tokens, hidden], final state [Hv, dk, dv]"""
        c, tokens = self.c, x.shape[0]
        hk, hv = c["linear_num_key_heads"], c["linear_num_value_heads"]
        dk, dv, width = c["linear_key_head_dim"], c["linear_value_head_dim"], c["linear_conv_kernel_dim"]
        u, z, b, a = self.delta_inputs(x, p)
        w = self.t[p + "conv1d.weight"][:, 0]
        past = torch.cat([torch.zeros(width - 1, u.shape[1], dtype=self.dtype), u])
        u = silu(sum(past[j:j + tokens] * w[:, j] for j in range(width)))
        q, k, v = u.split([hk * dk, hk * dk, hv * dv], -1)
        q, k, v = q.view(tokens, hk, dk), k.view(tokens, hk, dk), v.view(tokens, hv, dv)
        q = q * torch.rsqrt((q * q).sum(-1, keepdim=True) + 1e-6) * dk ** -0.5
        k = k * torch.rsqrt((k * k).sum(-1, keepdim=True) + 1e-6)
        beta = torch.sigmoid(b)
        a = a + self.t[p + "dt_bias"]
        decay = torch.exp(-torch.exp(self.t[p + "A_log"]) * torch.where(a > 20, a, torch.log1p(torch.exp(a))))
        of = torch.arange(hv) // (hv // hk)
        state = torch.zeros(hv, dk, dv, dtype=self.dtype)
        out = torch.zeros(tokens, hv, dv, dtype=self.dtype)
        for t in range(tokens):
            state = state * decay[t, :, None, None]
            delta = beta[t, :, None] * (v[t] - torch.einsum("hkv,hk->hv", state, k[t, of]))
            state = state + k[t, of][:, :, None] * delta[:, None]
            out[t] = torch.einsum("hkv,hk->hv", state, q[t, of])
        out = self.norm(out, p + "norm.weight", zero_centred=False) * silu(z)
        return self.linear(out.reshape(tokens, -1), p + "out_proj"), state

    # 3.7
    def dense_ffn(self, x, p):
        return self.linear(silu(self.linear(x, p + "gate_proj")) * self.linear(x, p + "up_proj"), p + "down_proj")

    def expert(self, x, p, e):
        if p + "experts.gate_up_proj" not in self.t:
            return self.dense_ffn(x, f"{p}experts.{e}.")
        gate, up = (x @ self.t[p + "experts.gate_up_proj"][e].T).chunk(2, -1)
        return (silu(gate) * up) @ self.t[p + "experts.down_proj"][e].T

    # 3.8 to 3.10
    def ffn(self, x, p):
        if p + "gate.weight" not in self.t:
            return self.dense_ffn(x, p)
        probs = softmax(self.linear(x, p + "gate"))
        out = torch.zeros_like(x)
        for t in range(x.shape[0]):
            chosen = torch.argsort(probs[t], descending=True, stable=True)[:self.c["num_experts_per_tok"]]
            weight = probs[t, chosen]
            # qwen3_5_moe has no such field and always renormalises; qwen3_moe's class default is false.
            if self.c.get("norm_topk_prob", self.hybrid):
                weight = weight / weight.sum()
            for w, e in zip(weight, chosen.tolist()):
                out[t] += w * self.expert(x[t:t + 1], p, e)[0]
        if p + "shared_expert_gate.weight" in self.t:
            gate = torch.sigmoid(self.linear(x, p + "shared_expert_gate"))
            out = out + gate * self.dense_ffn(x, p + "shared_expert.")
        return out

    def layer(self, x, p, kind):
        """One decoder layer under the name `p`. -> output, final recurrent state or None"""
        h, state = self.norm(x, p + "input_layernorm.weight"), None
        if kind == "linear_attention":
            h, state = self.gated_delta_net(h, p + "linear_attn.")
        else:
            h = self.attention(h, p + "self_attn.", self.c["sliding_window"] if kind == "sliding_attention" else None)
        x = x + h
        return x + self.ffn(self.norm(x, p + "post_attention_layernorm.weight"), p + "mlp."), state

    def embed(self, ids):
        return self.t[self.prefix + "embed_tokens.weight"][torch.as_tensor(ids, dtype=torch.long)]

    def lm_head(self, h):
        w = self.t.get("lm_head.weight")
        return h @ (self.t[self.prefix + "embed_tokens.weight"] if w is None else w).T

    def target(self, ids):
        """-> logits [tokens, vocab], final hidden [tokens, hidden], {layer: final recurrent state}"""
        x, states = self.embed(ids), {}
        for i in range(self.c["num_hidden_layers"]):
            x, state = self.layer(x, f"{self.prefix}layers.{i}.", self.layer_type(i))
            if state is not None:
                states[i] = state
        h = self.norm(x, self.prefix + "norm.weight")
        return self.lm_head(h), h, states

    # 11
    def mtp(self, next_ids, hidden):
        """Row p reads id p+1 and the hidden state of p, and rotates with p. -> draft logits, hidden after mtp.norm"""
        e = self.norm(self.embed(next_ids), "mtp.pre_fc_norm_embedding.weight")
        h = self.norm(hidden.to(self.dtype), "mtp.pre_fc_norm_hidden.weight")
        y, _ = self.layer(self.linear(torch.cat([e, h], -1), "mtp.fc"), "mtp.layers.0.", "full_attention")
        out = self.norm(y, "mtp.norm.weight")
        return self.lm_head(out), out

    def mtp_chain(self, next_ids, hidden, steps):
        """Drafts `steps` ids greedily from the last row, each step fed with the one before.
        -> ids, logits [steps, vocab]"""
        ids, rows, hidden = list(next_ids), [], hidden.to(self.dtype)
        for _ in range(steps):
            logits, out = self.mtp(ids, hidden)
            rows.append(logits[-1])
            ids.append(int(logits[-1].argmax()))
            hidden = torch.cat([hidden, out[-1:]])
        return ids[-steps:], torch.stack(rows)
