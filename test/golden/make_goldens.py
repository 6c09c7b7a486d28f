"""Writes the tiny random checkpoints of this folder and the numbers that transformers gets from them.

    python make_goldens.py [name ...]      needs torch, transformers, safetensors, numpy; no GPU, no network

For each checkpoint: draw every parameter, round it to bf16, save, edit into the forms real releases have (names,
shards, config keys, dtypes), then load the files back with transformers and run every prompt in f32. The goldens come
from the files, so whatever an edit means is what transformers says it means. README.md lists the keys.
"""

import json
import pathlib
import platform
import shutil
import sys
import tempfile
import zlib

import huggingface_hub
import numpy as np
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

from mtp_reference import Reference

HERE = pathlib.Path(__file__).parent
ROW = 7e-6
LENGTHS = [1, 2, 3, 63, 64, 65, 129, 300]
DETAILED = [2, 5]  # the cases of 3 and 65 tokens, which also store hidden states, recurrent states and drafts
CHAIN, CHAIN_STEPS = 5, 3
LINEAR, FULL, SLIDING = "linear_attention", "full_attention", "sliding_attention"


def attention(hidden, layers, q, kv, dim, vocab, tied=False, theta=1e6, eps=1e-6, **more):
    return dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=q, num_key_value_heads=kv,
                head_dim=dim, vocab_size=vocab, tie_word_embeddings=tied, rms_norm_eps=eps,
                rope_parameters={"rope_type": "default", "rope_theta": theta}, max_position_embeddings=512,
                eos_token_id=vocab - 1, **more)


def delta(hk, hv, dk, dv):
    return dict(linear_num_key_heads=hk, linear_num_value_heads=hv, linear_key_head_dim=dk, linear_value_head_dim=dv)


def moe(experts, top_k, width, **more):
    return dict(num_experts=experts, num_experts_per_tok=top_k, moe_intermediate_size=width, **more)


# Besides the class and its config fields:
#   shards      files to split into           old_config  rope_theta and friends as 4.x releases write them
#   mtp         add an MTP head               interval    full_attention_interval in place of layer_types
#   nested      multimodal names and config   experts     "each" or "fused", as released files of the type are, or not
#   f32         names that stay F32           sections    mrope_section
#   salt        tried until make() has no complaint: no row, routing or draft may hang on f32 rounding
#   embed       size of tied embeddings; larger ones leave less of a row to the layers' rounding
#   fastest     largest exp(A_log): a head that forgets at once gives one product k.q v, which its norm blows up when small
DELTA_F32 = ("A_log", "linear_attn.norm.weight")
CHECKPOINTS = {
    "qwen3-a": dict(cls="Qwen3", old_config=True, fields=attention(
        40, 4, 5, 5, 16, 101, tied=True, intermediate_size=56)),
    "qwen3-b": dict(cls="Qwen3", shards=2, fields=attention(
        56, 4, 12, 2, 16, 131, theta=10000.0, intermediate_size=80, use_sliding_window=True, sliding_window=17,
        layer_types=[SLIDING, FULL, SLIDING, SLIDING])),
    "qwen3-c": dict(cls="Qwen3", old_config=True, yarn={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        fields=attention(64, 4, 4, 1, 32, 101, theta=10000.0, eps=1e-5, intermediate_size=88)),
    "qwen3_moe-a": dict(cls="Qwen3Moe", old_config=True, experts="each", fields=attention(
        40, 4, 6, 1, 16, 101, **moe(7, 3, 24, norm_topk_prob=True, intermediate_size=64))),
    "qwen3_moe-b": dict(cls="Qwen3Moe", experts="fused", fields=attention(
        40, 4, 8, 2, 20, 103, theta=10000.0,
        **moe(8, 1, 16, norm_topk_prob=False, intermediate_size=72, decoder_sparse_step=2))),
    "qwen3_next-a": dict(cls="Qwen3Next", shards=3, mtp=True, old_config=True, interval=4, experts="each",
                         fields=attention(56, 4, 4, 1, 32, 101, theta=1e7, **delta(2, 4, 16, 16), **moe(
                             6, 2, 16, norm_topk_prob=True, shared_expert_intermediate_size=24, intermediate_size=48))),
    "qwen3_next-b": dict(cls="Qwen3Next", salt=7, embed=0.8, fastest=2, experts="each", f32=DELTA_F32, fields=attention(
        40, 5, 6, 1, 16, 101, tied=True, theta=10000.0, eps=1e-5, layer_types=[FULL, LINEAR, LINEAR, FULL, LINEAR],
        **delta(3, 9, 8, 12), **moe(7, 3, 20, norm_topk_prob=False, shared_expert_intermediate_size=28,
                                    intermediate_size=60, mlp_only_layers=[1]))),
    "qwen3_5-a": dict(cls="Qwen3_5", salt=1, embed=1.0, fastest=4, nested=True, mtp=True, sections=[2, 1, 1], f32=DELTA_F32, fields=attention(
        72, 4, 4, 1, 32, 137, tied=True, theta=1e7, intermediate_size=80, **delta(2, 2, 16, 16))),
    "qwen3_5-b": dict(cls="Qwen3_5", mtp=True, interval=2, sections=[1, 1, 1], f32=DELTA_F32, fields=attention(
        40, 4, 5, 5, 24, 101, theta=10000.0, eps=1e-5, intermediate_size=100, **delta(3, 12, 8, 12))),
    "qwen3_5-c": dict(cls="Qwen3_5", shards=2, f32=DELTA_F32, fields=attention(
        84, 4, 6, 1, 16, 101, theta=1e7, intermediate_size=92, layer_types=[FULL, LINEAR, LINEAR, LINEAR],
        **delta(2, 6, 16, 8))),
    "qwen3_5_moe-a": dict(cls="Qwen3_5Moe", nested=True, mtp=True, shards=2, sections=[1, 1, 0], experts="fused",
                          f32=DELTA_F32, fields=attention(
                              64, 4, 8, 2, 16, 101, theta=1e7, **delta(2, 4, 16, 8),
                              **moe(7, 2, 16, shared_expert_intermediate_size=24))),
    "qwen3_5_moe-b": dict(cls="Qwen3_5Moe", salt=2, embed=0.8, fastest=2, mtp=True, experts="each", f32=DELTA_F32, fields=attention(
        40, 4, 3, 3, 16, 101, tied=True, **delta(3, 3, 8, 12),
        **moe(9, 3, 12, shared_expert_intermediate_size=32))),
}


def bf16(x):
    return torch.as_tensor(np.asarray(x, np.float32)).to(torch.bfloat16).float()


class Drawer:
    """Draws parameters by what their names say they are, in order of name, from numpy's stable generator."""

    def __init__(self, seed, spec, linear_layers):
        self.rng = np.random.default_rng(seed)
        self.hybrid = spec["cls"] not in ("Qwen3", "Qwen3Moe")
        self.embed = spec.get("embed", 0.4 if spec["fields"]["tie_word_embeddings"] else 1.0)
        # Half-lives from half a thousand tokens to less than one, spread over the heads of all layers.
        heads = linear_layers * spec["fields"].get("linear_num_value_heads", 0)
        self.a_log = list(self.rng.permutation(np.log(np.geomspace(0.01, spec.get("fastest", 16), heads)))) if heads else []
        self.dt_bias = list(self.rng.permutation(np.linspace(-4, 2, heads))) if heads else []

    def draw(self, name, shape):
        if name.endswith("A_log"):
            return bf16([self.a_log.pop() for _ in range(shape[0])])
        if name.endswith("dt_bias"):
            return bf16([self.dt_bias.pop() for _ in range(shape[0])])
        normal = self.rng.standard_normal(shape)
        if "norm" in name:
            centre = 0 if self.hybrid and not name.endswith("linear_attn.norm.weight") else 1
            return bf16(centre + 0.2 * normal)
        if "embed_tokens" in name:
            return bf16(normal * self.embed)
        # Far apart router logits: fewer tokens whose choice of experts hangs on the last bits.
        gain = 2.0 if name.endswith("mlp.gate.weight") else 0.9
        return bf16(normal * gain / np.sqrt(shape[-1]))


def mtp_shapes(f, sparse):
    """Section 13 of the specification: the MTP head's tensors, experts fused."""
    h, q, kv = f["hidden_size"], f["num_attention_heads"] * f["head_dim"], f["num_key_value_heads"] * f["head_dim"]
    shapes = {"fc.weight": (h, 2 * h), "pre_fc_norm_hidden.weight": (h,), "pre_fc_norm_embedding.weight": (h,),
              "norm.weight": (h,)}
    layer = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,),
             "self_attn.q_proj.weight": (2 * q, h), "self_attn.k_proj.weight": (kv, h),
             "self_attn.v_proj.weight": (kv, h), "self_attn.o_proj.weight": (h, q),
             "self_attn.q_norm.weight": (f["head_dim"],), "self_attn.k_norm.weight": (f["head_dim"],)}
    if sparse:
        e, i, s = f["num_experts"], f["moe_intermediate_size"], f["shared_expert_intermediate_size"]
        layer |= {"mlp.gate.weight": (e, h), "mlp.experts.gate_up_proj": (e, 2 * i, h),
                  "mlp.experts.down_proj": (e, h, i), "mlp.shared_expert.gate_proj.weight": (s, h),
                  "mlp.shared_expert.up_proj.weight": (s, h), "mlp.shared_expert.down_proj.weight": (h, s),
                  "mlp.shared_expert_gate.weight": (1, h)}
    else:
        i = f["intermediate_size"]
        layer |= {"mlp.gate_proj.weight": (i, h), "mlp.up_proj.weight": (i, h), "mlp.down_proj.weight": (h, i)}
    return {"mtp." + k: v for k, v in shapes.items()} | {"mtp.layers.0." + k: v for k, v in layer.items()}


def split_experts(tensors):
    out = {}
    for name, t in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            for e in range(len(t)):
                gate, up = t[e].chunk(2)
                base = name.removesuffix("gate_up_proj") + str(e)
                out[base + ".gate_proj.weight"], out[base + ".up_proj.weight"] = gate.contiguous(), up.contiguous()
        elif name.endswith("experts.down_proj"):
            for e in range(len(t)):
                out[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] = t[e].contiguous()
        else:
            out[name] = t
    return out


def fuse_experts(tensors):
    out, lists = {}, {}
    for name, t in tensors.items():
        if ".experts." in name and name.endswith("_proj.weight"):
            base, e, which, _ = name.rsplit(".", 3)
            lists.setdefault(base, {})[int(e), which] = t
        else:
            out[name] = t
    for base, t in lists.items():
        count = 1 + max(e for e, _ in t)
        out[base + ".gate_up_proj"] = torch.stack(
            [torch.cat([t[e, "gate_proj"], t[e, "up_proj"]]) for e in range(count)])
        out[base + ".down_proj"] = torch.stack([t[e, "down_proj"] for e in range(count)])
    return out


def prompts(rng, vocab):
    cases = []
    for length in LENGTHS:
        ids = rng.integers(0, vocab, length)
        if length >= 63:
            ids[20:32] = ids[20]        # one token again and again
            ids[40:52] = ids[5:17]      # a phrase said twice
        cases.append(ids.tolist())
    return cases


def write_config(folder, saved, spec):
    f = spec["fields"]
    saved.pop("transformers_version", None)
    dtype_key = "torch_dtype" if spec.get("old_config") else "dtype"
    saved.pop("dtype", None)
    if spec.get("old_config"):
        rope = saved.pop("rope_parameters")
        saved["rope_theta"] = rope["rope_theta"]
        saved["rope_scaling"] = spec.get("yarn")
        if "partial_rotary_factor" in rope:
            saved["partial_rotary_factor"] = rope["partial_rotary_factor"]
        if "num_local_experts" in saved:  # what save_pretrained calls it for qwen3_moe
            saved["num_experts"] = saved.pop("num_local_experts")
        if LINEAR not in saved.get("layer_types", [LINEAR]):
            del saved["layer_types"]
    if "interval" in spec:
        del saved["layer_types"]
        saved["full_attention_interval"] = spec["interval"]
    if spec["cls"].startswith("Qwen3_5"):
        saved["mtp_num_hidden_layers"] = 1 if spec.get("mtp") else 0
        saved |= {"mtp_use_dedicated_embeddings": False, "attn_output_gate": True, "mamba_ssm_dtype": "float32"}
    saved[dtype_key] = "bfloat16"
    if spec.get("nested"):
        saved.pop("architectures")
        vocab = f["vocab_size"]
        saved = {"architectures": [spec["cls"] + "ForConditionalGeneration"],
                 "model_type": saved["model_type"].removesuffix("_text"), "text_config": saved,
                 "tie_word_embeddings": f["tie_word_embeddings"],
                 "vision_start_token_id": vocab - 4, "vision_end_token_id": vocab - 3,
                 "image_token_id": vocab - 2, "video_token_id": vocab - 1,
                 "vision_config": {"model_type": saved["model_type"].removesuffix("_text"), "depth": 1,
                                   "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "in_channels": 3,
                                   "num_position_embeddings": 16, "out_hidden_size": f["hidden_size"],
                                   "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}}
    (folder / "config.json").write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    return saved.get("text_config", saved)


def build(name, spec, seed):
    """Draws and writes the checkpoint. -> folder, flat config, tensors as stored, prompts"""
    cls, fields = spec["cls"], dict(spec["fields"])
    rope = fields["rope_parameters"] = dict(fields["rope_parameters"])
    if cls not in ("Qwen3", "Qwen3Moe"):
        rope["partial_rotary_factor"] = 0.25
        if "sections" in spec:
            rope |= {"mrope_section": spec["sections"], "mrope_interleaved": True}
    if "interval" in spec:
        fields["full_attention_interval"] = spec["interval"]
    text = "Text" if cls.startswith("Qwen3_5") else ""
    config = getattr(transformers, cls + text + "Config")(**fields)
    model = getattr(transformers, cls + "ForCausalLM")(config)
    drawer = Drawer(seed, spec, (getattr(config, "layer_types", None) or []).count(LINEAR))
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            parameter.copy_(drawer.draw(key, tuple(parameter.shape)))

    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(scratch + "/model.safetensors")
        saved = json.loads(pathlib.Path(scratch, "config.json").read_text())
    emitted = "each" if any(".experts.0." in k for k in tensors) else "fused"
    form = spec.get("experts", emitted)  # save_pretrained writes one tensor an expert for every type here
    if spec.get("mtp"):
        extra = {k: drawer.draw(k, s) for k, s in sorted(mtp_shapes(spec["fields"], "num_experts" in fields).items())}
        tensors |= split_experts(extra) if form == "each" else extra
    if form != emitted:
        tensors = split_experts(tensors) if form == "each" else fuse_experts(tensors)
    if spec.get("nested"):
        tensors = {k.replace("model.", "model.language_model.", 1) if k.startswith("model.") else k: t
                   for k, t in tensors.items()}
        tensors["model.visual.x"] = torch.zeros(4)
    for key in tensors:
        if not key.endswith(spec.get("f32", ("\0",))):
            stored = tensors[key].to(torch.bfloat16)
            assert torch.equal(stored.float(), tensors[key]), key
            tensors[key] = stored

    folder.mkdir()
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    huggingface_hub.save_torch_state_dict(
        tensors, folder, max_shard_size=int(size / spec.get("shards", 1) * 1.15) + 1, metadata={"format": "pt"})
    assert len(list(folder.glob("*.safetensors"))) == spec.get("shards", 1), name
    flat = write_config(folder, saved, spec)
    usable = spec["fields"]["vocab_size"] - (4 if spec.get("nested") else 0)  # never an image token
    cases = prompts(drawer.rng, usable)
    (folder / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    return folder, flat, tensors, cases


def text_stack(model):
    inner = model.model
    return getattr(inner, "language_model", inner)


def run(model, ids, top_k):
    """One forward of one prompt. -> logits, raw hidden states, final hidden, {layer: state}, router margins or None"""
    stack, hidden, margins, final, hooks = text_stack(model), [], [], [], []
    hooks.append(stack.embed_tokens.register_forward_hook(lambda m, i, o: hidden.append(o[0])))
    hooks.append(stack.norm.register_forward_hook(lambda m, i, o: final.append(o[0])))
    for layer in stack.layers:
        hooks.append(layer.register_forward_hook(lambda m, i, o: hidden.append(o[0])))
        if hasattr(layer.mlp, "gate"):
            def margin(m, i, o):
                best = o[0].topk(top_k + 1, -1).values
                margins.append(best[:, -2] - best[:, -1])
            hooks.append(layer.mlp.gate.register_forward_hook(margin))
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=True)
    for hook in hooks:
        hook.remove()
    states = {}
    for i, layer in enumerate(stack.layers):
        if hasattr(layer, "linear_attn"):
            states[i] = out.past_key_values.layers[i].recurrent_states[0][0]
    return out.logits[0], hidden, final[0], states, torch.stack(margins).amin(0) if margins else None


def sort_metadata(file):
    """save_file writes metadata in any order; sorted, the same numbers give the same bytes."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(text) == length
    file.write_bytes(data[:8] + text + data[8 + length:])


def worst(a, b):
    return (a.double() - b.double()).abs().max().item()


def worst_row(a, b):
    """Largest relative L2 difference of a row, as tests compare."""
    return ((a.double() - b.double()).norm(dim=-1) / b.double().norm(dim=-1)).max().item()


def lead(logits):
    best = logits.topk(2, -1).values
    return (best[:, 0] - best[:, 1]).min().item()


def make(name):
    spec = CHECKPOINTS[name]
    seed = zlib.crc32(f"{name} {spec.get('salt', 0)}".encode())
    folder, config, tensors, cases = build(name, spec, seed)
    torch.manual_seed(0)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    model.eval()
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert all(p.dtype == torch.float32 for p in model.parameters())
    prefix = "model.language_model." if spec.get("nested") else "model."
    exact, single = (Reference(config, tensors, prefix, d) for d in (torch.float64, torch.float32))

    golden, logits_off, state_off, layer_off, margin, gap = {}, 0.0, 0.0, 0.0, float("inf"), float("inf")
    row_off = 0.0
    for n, ids in enumerate(cases):
        logits, hidden, final, states, margins = run(model, ids, config.get("num_experts_per_tok"))
        assert torch.isfinite(logits).all() and len(hidden) == config["num_hidden_layers"] + 1
        golden[str(n)] = logits
        if margins is not None:
            golden[f"{n}.router_margin"] = margins
            margin = min(margin, margins.min().item())
        ours, _, our_states = exact.target(ids)
        logits_off = max(logits_off, worst(ours, logits))
        row_off = max(row_off, worst_row(logits, ours))
        state_off = max([state_off] + [worst(our_states[i], states[i]) for i in states])
        if n not in DETAILED:
            continue
        for i, h in enumerate(hidden):
            golden[f"{n}.hidden.{i}"] = h
        golden[f"{n}.final_hidden"] = final
        for i, state in states.items():
            golden[f"{n}.recurrent.{i}"] = state
        # The code of the MTP layer on the model's own full attention layers, each from transformers' own input.
        for i in range(config["num_hidden_layers"]):
            if single.layer_type(i) == FULL:
                out, _ = single.layer(hidden[i], f"{prefix}layers.{i}.", FULL)
                layer_off = max(layer_off, worst(out, hidden[i + 1]))
        if spec.get("mtp"):
            next_ids = ids[1:] + [int(logits[-1].argmax())]
            golden[f"{n}.mtp_ids"] = torch.tensor(next_ids, dtype=torch.int32)
            golden[f"{n}.mtp"], golden[f"{n}.mtp_hidden"] = single.mtp(next_ids, final)
            gap = min(gap, lead(logits[-1:]))
            logits_off = max(logits_off, worst(exact.mtp(next_ids, final)[0], golden[f"{n}.mtp"]))
            if n == CHAIN:
                chain, rows = single.mtp_chain(next_ids, final, CHAIN_STEPS)
                golden[f"{n}.mtp_chain"], golden[f"{n}.mtp_chain_logits"] = torch.tensor(chain, dtype=torch.int32), rows
                gap = min(gap, lead(rows))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__,
                "safetensors": safetensors.__version__, "python": platform.python_version(), "seed": str(seed)}
    save_file({k: t.detach().clone().contiguous() for k, t in golden.items()}, folder / "golden.safetensors", versions)
    sort_metadata(folder / "golden.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(p.stat().st_size for p in folder.iterdir())
    top = max(golden[str(n)].abs().max().item() for n in range(len(cases)))
    print(f"{name:14} {type(model).__name__:21} {size / 1e3:5.0f} kB  |logit| <= {top:4.1f}  reference in f64: logits "
          f"{logits_off:.1e} row {row_off:.1e} states {state_off:.1e}  layer in f32: {layer_off:.1e}  router margin >= {margin:.1e}"
          f"  draft lead >= {gap:.1e}", flush=True)
    return logits_off <= 1e-5 * top and row_off <= ROW and margin >= 2e-4 and gap >= 0.02


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names = sys.argv[1:] or list(CHECKPOINTS)
    for name in names:
        if not make(name):
            sys.exit(f"{name}: too much hangs on rounding; try another salt")
    (HERE / "golden_list.txt").write_text("".join(n + "\n" for n in CHECKPOINTS))
    print(f"total {sum(p.stat().st_size for p in HERE.rglob('*') if p.is_file() and p.suffix != '.pyc') / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
