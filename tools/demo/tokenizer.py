"""Trains the demo tokenizer on part of data.py's text: `tokenizer.py WORK TEMPLATE OUT`

Writes OUT/tokenizer.json, tokenizer_config.json, chat_template.jinja (a copy of TEMPLATE, Qwen3.5's) and
generation_config.json, in the form real Qwen checkpoints have them. The vocabulary ends 8 rows before the model's, as real
embeddings are padded too.
"""

import json
import lzma
import pathlib
import shutil
import sys

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

ENTRIES = 8184
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
ADDED = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]  # in the vocabulary, but not special
# Qwen3.5's: marks belong to the letters before them, digits stand alone.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAMPLE = dict(prose=30_000_000, structured=4_000_000, chat=4_000_000)


def documents(work):
    for name, most in SAMPLE.items():
        size = 0
        for path in sorted((work / "train").glob(f"{name}*.txt.xz")):
            for document in lzma.open(path, "rt").read().split("\0"):
                size += len(document)
                if size > most:
                    break
                for token in SPECIAL + ADDED:
                    document = document.replace(token, "\n")
                yield document


def main():
    work, template, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(SPECIAL) - len(ADDED),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
    )
    tokenizer.train_from_iterator(documents(work), trainer)
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([tokenizers.AddedToken(t, special=False, normalized=False) for t in ADDED])
    assert tokenizer.get_vocab_size() == ENTRIES, tokenizer.get_vocab_size()
    tokenizer.save(str(out / "tokenizer.json"))

    ids = {t: tokenizer.token_to_id(t) for t in SPECIAL + ADDED}
    decoder = {
        str(i): dict(content=t, lstrip=False, normalized=False, rstrip=False, single_word=False, special=t in SPECIAL)
        for t, i in ids.items()
    }
    config = dict(
        add_bos_token=False,
        add_prefix_space=False,
        added_tokens_decoder=decoder,
        additional_special_tokens=SPECIAL[1:],
        bos_token=None,
        clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>",
        errors="replace",
        model_max_length=32768,
        pad_token="<|endoftext|>",
        split_special_tokens=False,
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
    )
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = dict(
        do_sample=True,
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
        temperature=0.7,
        top_k=20,
        top_p=0.95,
    )
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    shutil.copyfile(template, out / "chat_template.jinja")


if __name__ == "__main__":
    main()
