"""The official client against every endpoint: streamed = unstreamed, usage, logprobs, errors, cancellation."""
import json
import math
import socket
import struct
import subprocess
import time

import openai
import pytest

from serving import BIN, DEMO, figure

CHAT = [{"role": "user", "content": "What is a file?"}]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("options", [
    {"temperature": 0},
    {"temperature": 0.8, "seed": 7, "top_p": 0.9},
    {"temperature": 1, "seed": 3, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 0, "stop": [" file", "\n\n"]},
    {"temperature": 0, "logit_bias": {"13": 2, "14": -100}},
    {"temperature": 0.9, "seed": 11, "n": 3},
], ids=lambda o: "-".join(o))
def test_streamed_chat_is_the_unstreamed_one(server, client, options):
    whole = client.chat.completions.create(model="demo", messages=CHAT, max_tokens=60, **options)
    stream = client.chat.completions.create(model="demo", messages=CHAT, max_tokens=60, stream=True,
                                            stream_options={"include_usage": True}, **options)
    n = options.get("n", 1)
    texts, thoughts, reasons, usage = [""] * n, [""] * n, [None] * n, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            thoughts[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    for choice in whole.choices:
        assert texts[choice.index] == (choice.message.content or "")
        assert thoughts[choice.index] == (getattr(choice.message, "reasoning_content", None) or "")
        assert reasons[choice.index] == choice.finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens == len(
        server.post("/tokenize", {"messages": CHAT})[1]["tokens"])


def test_streamed_completion_is_the_unstreamed_one(server, client):
    prompts = ["The first thing to know", "A file is"]
    whole = client.completions.create(model="demo", prompt=prompts, max_tokens=24, temperature=0, n=2)
    texts = [""] * 4
    for chunk in client.completions.create(model="demo", prompt=prompts, max_tokens=24, temperature=0, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert whole.usage.prompt_tokens == sum(len(server.tokens(prompt)) for prompt in prompts)
    assert whole.usage.completion_tokens == 4 * 24


def test_usage_counts_the_tokens_of_the_text(server, client):
    answer = client.completions.create(model="demo", prompt="The first thing to know", max_tokens=16, temperature=0)
    ids = server.tokens("The first thing to know" + answer.choices[0].text)
    # Text that was drawn token by token may be spelled with fewer.
    assert abs(len(ids) - answer.usage.total_tokens) <= 1


def logits_of(plan, tokens, folder):
    cases, out = folder / "cases.json", folder / "out.safetensors"
    cases.write_text(json.dumps([tokens]))
    subprocess.run([BIN / "qwenrt", "logits", plan, "--weights", DEMO, "--tokens", cases, "-o", out, "--force"],
                   check=True, capture_output=True)
    data = out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    entry = next(value for key, value in header.items() if key != "__metadata__")
    rows, vocab = entry["shape"]
    body = data[8 + length:]
    flat = struct.unpack(f"<{rows * vocab}f", body[entry["data_offsets"][0]:entry["data_offsets"][1]])
    return [flat[r * vocab:(r + 1) * vocab] for r in range(rows)]


def log_softmax(row):
    top = max(row)
    total = top + math.log(math.fsum(math.exp(value - top) for value in row))
    return [value - total for value in row]


def test_logprobs_are_those_of_the_logits(server, client, plan, tmp_path):
    prompt = "The first thing to know about a file is"
    answer = client.completions.create(model="demo", prompt=prompt, max_tokens=8, temperature=0.7, seed=5, logprobs=4,
                                       echo=True)
    choice = answer.choices[0]
    prompt_ids = server.tokens(prompt)
    pieces = choice.logprobs.tokens
    assert "".join(pieces) == choice.text
    ids = prompt_ids + [server.tokens(piece)[0] for piece in pieces[len(prompt_ids):]]
    assert all(len(server.tokens(piece)) == 1 for piece in pieces[len(prompt_ids):])
    rows = logits_of(plan, ids, tmp_path)
    assert choice.logprobs.token_logprobs[0] is None
    worst = 0.0
    for i in range(1, len(ids)):
        want = log_softmax(rows[i - 1])
        worst = max(worst, abs(choice.logprobs.token_logprobs[i] - want[ids[i]]))
        best = sorted(want, reverse=True)[:4]
        got = sorted(choice.logprobs.top_logprobs[i].values(), reverse=True)
        worst = max([worst] + [abs(a - b) for a, b in zip(got, best)])
    figure(f"logprobs of {len(ids) - 1} tokens against qwenrt logits: worst difference {worst:.1e}")
    assert worst <= 1e-3


def test_chat_logprobs_join_to_the_content(client):
    answer = client.chat.completions.create(model="demo", messages=CHAT, max_tokens=60, temperature=0, logprobs=True,
                                            top_logprobs=2)
    choice = answer.choices[0]
    joined = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
    assert joined.decode() == choice.message.content
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 2 and entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_models(client):
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize("kind, call", [
    (openai.BadRequestError, dict(temperature=3)),
    (openai.BadRequestError, dict(messages=[])),
    (openai.BadRequestError, dict(max_tokens=-1)),
    (openai.BadRequestError, dict(n=99)),
    (openai.BadRequestError, dict(logit_bias={"99999999": 1})),
    (openai.BadRequestError, dict(messages=[{"role": "user", "content": "a" * 400_000}])),
    (openai.NotFoundError, dict(model="gpt-5")),
], ids=["range", "empty", "negative", "n", "id", "context", "model"])
def test_each_refusal_raises_its_own_exception(client, kind, call):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "demo", "messages": CHAT, "max_tokens": 4, **call})
    assert set(caught.value.body) >= {"message", "type", "param", "code"}


def test_a_wrong_key_and_no_key(servers):
    server = servers("--api-key", "right")
    url = f"{server.url}/v1"
    assert openai.OpenAI(base_url=url, api_key="right").models.list().data
    for key in ("wrong", "righ", "right2"):
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key=key, max_retries=0).models.list()
    assert server.request("GET", "/health")[0] == 200 and server.request("GET", "/metrics")[0] == 401


def test_a_full_queue_is_a_rate_limit(new_server):
    server = new_server("--max-num-seqs", "1", "--max-queue", "1")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    streams = []
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(8):
            streams.append(client.completions.create(model="demo", prompt="a", max_tokens=20_000, stream=True,
                                                     extra_body={"ignore_eos": True}))
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    for stream in streams:
        stream.close()
    server.idle()


def test_tokenize_detokenize_and_render(server):
    text = "Hello wörld 🙂 <|im_end|>"
    tokens = server.tokens(text)
    status, answer = server.post("/detokenize", {"tokens": tokens})
    assert (status, answer["content"]) == (200, text)
    status, answer = server.post("/apply-template", {"messages": CHAT})
    assert status == 200 and "What is a file?" in answer["prompt"]


def raw_stream(server, body):
    data = json.dumps(body).encode()
    stream = socket.create_connection(("127.0.0.1", server.port))
    stream.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                   b"content-length: %d\r\n\r\n" % len(data) + data)
    return stream


def test_a_closed_client_stops_its_generation(server):
    before = server.idle()["qwenrt_generation_tokens_total"]
    stream = raw_stream(server, {"prompt": "a", "max_tokens": 4000, "stream": True, "ignore_eos": True})
    seen = b""
    while seen.count(b"data: ") < 6:
        seen += stream.recv(1 << 16)
    stream.close()
    made = server.idle()["qwenrt_generation_tokens_total"] - before
    got = seen.count(b"data: ")
    figure(f"a client that left after {got} events: {made:.0f} tokens were made")
    assert made <= got + 40  # of 4000: a loaded machine may lose some time slices before the end arrives


@pytest.mark.parametrize("phase", ["head", "body", "queued", "streaming", "unstreamed"])
def test_a_client_that_leaves_costs_nothing(server, phase):
    descriptors = server.open_descriptors()
    body = {"prompt": "a", "max_tokens": 2000, "stream": phase != "unstreamed", "ignore_eos": True}
    for _ in range(5):
        if phase in ("head", "body"):
            stream = socket.create_connection(("127.0.0.1", server.port))
            stream.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                           + (b"content-length: 100\r\n\r\n{" if phase == "body" else b""))
        else:
            stream = raw_stream(server, body)
            if phase == "streaming":
                stream.recv(100)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        stream.close()
    server.idle()
    assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200
    deadline = time.monotonic() + 10
    while server.open_descriptors() > descriptors:
        assert time.monotonic() < deadline, "descriptors stay open"
        time.sleep(0.01)
