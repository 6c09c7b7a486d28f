"""Holds model.py against transformers' forward, the MTP steps against a chain run one row at a time, and chat.py's rendering
against the template.

    python test_demo.py TOKENIZER     small sizes on the CPU, seconds; TOKENIZER is a checkpoint's folder
"""

import random
import sys

import torch
import transformers

import chat
import model

SMALL = dict(
    hidden_size=64,
    vocab_size=97,
    head_dim=32,
    num_attention_heads=4,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=24,
    num_hidden_layers=4,
)
OWN = {"dense": dict(intermediate_size=80), "moe": dict(moe_intermediate_size=16, shared_expert_intermediate_size=24)}
TOKENS = 2 * model.CHUNK


def network(kind):
    torch.manual_seed(1)
    config = model.config_of(kind, **SMALL, **OWN[kind])
    config.rope_parameters["mrope_section"] = [2, 1, 1]
    config._attn_implementation = "sdpa"
    net = model.Network(config, kind).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return net.float()


def forward(net, ids):
    spec = net.spec
    cos, sin = model.rotation(spec, ids.shape[1], ids.device)
    x, routings = model.trunk(net.lm.model.embed_tokens(ids), net.layer_parameters(), spec, cos, sin)
    return model.norm(x, net.lm.model.norm.weight, spec.eps), routings, cos, sin


def test_forward(kind):
    net = network(kind)
    ids = torch.randint(0, 97, (2, TOKENS))
    with torch.no_grad():
        want = net.lm(input_ids=ids, use_cache=False).logits
        h, _, _, _ = forward(net, ids)
    got = h @ net.lm.lm_head.weight.T
    worst = ((got - want).norm(dim=-1) / want.norm(dim=-1)).max().item()
    print(f"{kind}: worst row {worst:.1e}")
    assert worst < 2e-5, worst


def test_gradient(kind):
    """The inverse's hand-written backward, and all the rest: both forwards give the same gradients."""
    net = network(kind)
    ids = torch.randint(0, 97, (1, TOKENS))
    grads = []
    for run in (
        lambda: net.lm(input_ids=ids, use_cache=False).logits,
        lambda: forward(net, ids)[0] @ net.lm.lm_head.weight.T,
    ):
        net.zero_grad()
        run().log_softmax(-1)[0, torch.arange(TOKENS), ids[0]].mean().backward()
        grads.append({n: p.grad.clone() for n, p in net.lm.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    worst = max((grads[0][n] - grads[1][n]).norm() / (grads[0][n].norm() + 1e-9) for n in grads[0])
    print(f"{kind}: worst gradient {worst:.1e}")
    assert worst < 1e-3, worst


def test_chain(kind):
    """Step 3 at row r equals three passes over the prefix, the last two rows fed by the head itself."""
    net = network(kind)
    ids = torch.randint(0, 97, (1, TOKENS))
    spec, p = net.spec, net.head_parameters()
    with torch.no_grad():
        h, _, cos, sin = forward(net, ids)
        after = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        steps, _ = model.mtp_steps(h, after, p, spec, cos, sin, 3)
        for row in (2, 5, 40):
            hidden = h[:, : row - 1].clone()
            for step in range(3):
                n = hidden.shape[1]
                out = model.mtp_steps(hidden, after[:, :n], p, spec, cos[:n], sin[:n], 1)[0][0]
                hidden = torch.cat([hidden, out[:, -1:]], 1)
                off = (steps[step][0, n - 1] - out[0, -1]).norm() / out[0, -1].norm()
                assert off < 1e-4, (row, step, off)
    print(f"{kind}: chain ok")


def test_chat(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rng = random.Random(0)
    for n in range(200):
        turns = [
            make(rng, None)
            for make in rng.choices([chat.greeting, chat.arithmetic, chat.as_table, chat.story], k=1 + n % 3)
        ]
        system = chat.SYSTEM[0] if n % 4 == 0 else None
        messages = [dict(role="system", content=system)] if system else []
        for question, thought, answer in turns:
            messages += [
                dict(role="user", content=question),
                dict(role="assistant", content=answer, reasoning_content=thought),
            ]
        want = tokenizer.apply_chat_template(messages, tokenize=False)
        assert chat.render(turns, True, system) == want, want
        asked = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True, enable_thinking=n % 2 == 0
        )
        assert chat.render(turns, n % 2 == 0, system).startswith(asked), asked
    print("chat: rendered as the template does")


if __name__ == "__main__":
    test_chat(sys.argv[1])
    for kind in ("dense", "moe"):
        test_forward(kind)
        test_gradient(kind)
        test_chain(kind)
