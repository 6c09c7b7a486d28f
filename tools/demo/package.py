"""Puts a checkpoint folder together: `package.py dense|moe SHARDS TOKENIZER OUT`

SHARDS is train.py's --out, TOKENIZER is tokenizer.py's OUT. Adds config.json in the form real Qwen3.5 files have it.
"""

import json
import pathlib
import shutil
import sys

import tokenizers

import model


def main():
    kind, shards, tokenizer, out = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    out.mkdir(parents=True, exist_ok=True)
    fields = model.config_of(kind).to_diff_dict()
    for key in ("transformers_version", "dtype", "_attn_implementation"):
        fields.pop(key, None)
    end = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json")).token_to_id("<|endoftext|>")
    fields |= dict(
        architectures=[model.classes(kind, "ForCausalLM")[1].__name__],
        dtype="bfloat16",
        eos_token_id=end,
        attn_output_gate=True,
        full_attention_interval=4,
        hidden_act="silu",
        attention_bias=False,
        mamba_ssm_dtype="float32",
        mtp_num_hidden_layers=1,
        mtp_use_dedicated_embeddings=False,
        tie_word_embeddings=True,
    )
    (out / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    for file in [
        *shards.glob("model-*.safetensors"),
        shards / "model.safetensors.index.json",
        shards / "train.json",
        *(
            tokenizer / n
            for n in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
        ),
    ]:
        shutil.copyfile(file, out / file.name)


if __name__ == "__main__":
    main()
