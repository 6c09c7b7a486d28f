"""What transformers says of the demo checkpoints: `make_goldens.py CHECKPOINT OUT.safetensors [PROMPTS.json]`

20 prompts (half raw text, half chat through the template), each followed for 64 greedy tokens in f32. Keys, `n` the prompt:

    n.prompt    i32 [tokens]        the prompt's ids
    n.greedy    i32 [64]            the ids transformers chooses, end token or not
    n.margin    f32 [64]            by how much each choice leads: below 1e-3 is a near tie
    n.rows      f32 [tokens + 63, columns]   logits of every row, prompt and continuation, at `columns`
    n.lse       f32 [tokens + 63]   logsumexp of every whole row
    n.drafts    i32 [3]             MTP drafts after the prompt and its first greedy token: test/golden/mtp_reference.py
    n.draft_margin f32 [3]
    columns     i32 [columns]       the ids whose logits are kept

"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "test/golden"))
from mtp_reference import Reference  # noqa: E402

GREEDY, DRAFTS, COLUMNS = 64, 3, 96


def lead(rows):
    best = rows.topk(2, -1).values
    return best[:, 0] - best[:, 1]


@torch.no_grad()
def main():
    folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    prompts = json.loads((pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "prompts.json").read_text())
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    lm = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tensors = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        tensors |= load_file(file)
    reference = Reference(json.loads((folder / "config.json").read_text()), tensors, dtype=torch.float32)
    columns = torch.randperm(len(tokenizer), generator=torch.Generator().manual_seed(1))[:COLUMNS].sort().values
    golden = dict(columns=columns.int())
    for n, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(
                tokenizer.apply_chat_template(
                    prompt["messages"], tokenize=False, add_generation_prompt=True, enable_thinking=prompt["thinking"]
                ),
                add_special_tokens=False,
            )["input_ids"]
        # With a cache token by token, then once more whole: the rows kept come from one plain forward.
        text = list(ids)
        step = lm(input_ids=torch.tensor([text]), use_cache=True)
        for _ in range(GREEDY):
            text.append(int(step.logits[0, -1].argmax()))
            step = lm(input_ids=torch.tensor([text[-1:]]), past_key_values=step.past_key_values, use_cache=True)
        logits = lm(input_ids=torch.tensor([text[:-1]]), use_cache=False).logits[0]
        rows = logits[len(ids) - 1 :]
        assert rows.argmax(-1).tolist() == text[len(ids) :], n
        hidden = lm.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        drafted, draft_rows = reference.mtp_chain(text[1 : len(ids) + 1], hidden, DRAFTS)
        golden |= {
            f"{n}.prompt": torch.tensor(ids, dtype=torch.int32),
            f"{n}.greedy": torch.tensor(text[len(ids) :], dtype=torch.int32),
            f"{n}.margin": lead(rows),
            f"{n}.rows": logits[:, columns].contiguous(),
            f"{n}.lse": logits.logsumexp(-1),
            f"{n}.drafts": torch.tensor(drafted, dtype=torch.int32),
            f"{n}.draft_margin": lead(draft_rows),
        }
        print(
            f"{n}: {len(ids)} ids, least margin {lead(rows).min():.1e}, drafts {drafted} of {text[len(ids) + 1:len(ids) + 1 + DRAFTS]}"
            f"\n    {tokenizer.decode(text[len(ids):])!r}",
            flush=True,
        )
    save_file(golden, out, dict(torch=torch.__version__, transformers=transformers.__version__))


if __name__ == "__main__":
    main()
