"""The prefix cache as clients see it: cached tokens reported honestly, and the same text as without."""
import random

import pytest

from serving import ROOT, figure

TEMPLATES = {"Qwen3": "Qwen-Qwen3-0.6B.jinja", "Qwen3.5": "Qwen3.5-4B.jinja"}
QUESTIONS = ["What is a file?", "And what is a folder?", "Tell me about the moon.", "What is a package? " * 30]


def common_prefix(a, b):
    count = 0
    while count < min(len(a), len(b)) and a[count] == b[count]:
        count += 1
    return count


def converse(server, turns, seed):
    """[(text, cached tokens, prompt ids, prompt and answer ids)] of a chat whose history is sent back every turn."""
    messages, said = [{"role": "system", "content": "You answer in one sentence. " * 20}], []
    for turn in range(turns):
        messages.append({"role": "user", "content": QUESTIONS[turn % len(QUESTIONS)]})
        status, answer = server.post("/v1/chat/completions", {
            "messages": messages, "max_tokens": 90, "temperature": 0.7, "seed": seed})
        assert status == 200, answer
        message = answer["choices"][0]["message"]
        thought = message.get("reasoning_content", "")
        ids = server.post("/tokenize", {"messages": messages})[1]["tokens"]
        said.append((thought, message["content"], answer["usage"]["prompt_tokens_details"]["cached_tokens"], ids))
        assert answer["usage"]["prompt_tokens"] == len(ids)
        messages.append({"role": "assistant", "content": message["content"] or "", "reasoning_content": thought})
    return said


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("budget", ["all", "20 snapshots"])
def test_four_turns(new_server, name, budget):
    template = str(ROOT / "test/data/chat_templates" / TEMPLATES[name])
    flags = ["--chat-template", template, "--deterministic"]
    plain = new_server(*flags, "--no-enable-prefix-caching")
    want = converse(plain, 4, seed=9)
    plain.stop()
    if budget != "all":
        flags += ["--state-cache-bytes", str(20 * snapshot_bytes(new_server))]
    server = new_server(*flags)
    worst = 0
    for round_ in range(3):
        if budget != "all":  # others fill the cache between the rounds
            for i in range(30):
                server.post("/v1/completions", {"prompt": f"{i} " + "text " * 200, "max_tokens": 1})
        got = converse(server, 4, seed=9)
        assert [turn[:2] for turn in got] == [turn[:2] for turn in want]
        if round_ == 0:
            for before, turn in zip(got, got[1:]):
                # What an earlier turn had fed: its prompt. The templates drop or rewrite what it had answered.
                common = common_prefix(before[3], turn[3])
                worst = max(worst, common - turn[2])
                assert turn[2] >= common - 64, (turn[2], common)
    figure(f"{name}, {budget}: 4 turns, cached {[turn[2] for turn in got]} of {[len(turn[3]) for turn in got]} tokens; "
           f"at most {worst} of a turn's common prefix were computed again")


def snapshot_bytes(new_server):
    """Of one: what the cache says after one prompt."""
    server = new_server()
    server.post("/v1/completions", {"prompt": "text " * 100, "max_tokens": 1, "temperature": 0})
    figures = server.idle()
    server.stop()
    count = figures["qwenrt_state_cache_snapshots"]
    assert count > 0
    return int(figures["qwenrt_state_cache_bytes"] / count)


def test_64_requests_with_a_shared_beginning(new_server):
    server = new_server("--max-model-len", "4096")
    draw = random.Random(3)
    shared = [draw.randrange(300, 8000) for _ in range(1500)]
    hits = 0
    for _ in range(64):
        own = [draw.randrange(300, 8000) for _ in range(700)]
        status, answer = server.post("/v1/completions", {"prompt": shared + own, "max_tokens": 1, "temperature": 0})
        assert status == 200, answer
        hits += answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 1500 - 64
    figure(f"64 requests of 1,500 shared and 700 own tokens: {hits} hits")
    assert hits >= 62
