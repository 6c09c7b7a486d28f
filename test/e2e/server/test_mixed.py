"""Requests beside one another give what each gives alone, whatever runs, leaves or waits."""
import concurrent.futures
import json
import random
import socket

from serving import figure
from test_openai_client import raw_stream

WORDS = "file folder moon kernel package the a of is one two editor release build water light".split()

SHARED = "This is the beginning that some of the requests have in common. " * 12


def mixed_requests(count, seed):
    draw = random.Random(seed)
    requests = []
    for i in range(count):
        body = {"max_tokens": draw.choice([1, 4, 16, 40]), "seed": i}
        if draw.random() < 0.4:
            body["temperature"] = 0
        else:
            body.update(temperature=draw.choice([0.5, 0.9, 1.3]), top_p=draw.choice([0.7, 0.95, 1]),
                        top_k=draw.choice([0, 5, 50]))
        if draw.random() < 0.2:
            body["n"] = draw.randint(2, 3)
        if draw.random() < 0.3:
            body["stop"] = draw.sample([" the", ".", "\n", " file", " a"], 2)
        if draw.random() < 0.2:
            body.update(presence_penalty=0.7, frequency_penalty=0.4, repetition_penalty=1.1)
        if draw.random() < 0.2:
            body["logit_bias"] = {str(draw.randrange(8000)): draw.choice([-100, 3])}
        if draw.random() < 0.5:
            body["logprobs"] = 2
        words = " ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 5, 30, 300])))
        body["prompt"] = (SHARED if draw.random() < 0.3 else "") + words
        requests.append(body)
    return requests


def answer_of(server, body):
    status, answer = server.post("/v1/completions", body)
    assert status == 200, answer
    return [(choice["text"], choice["finish_reason"], choice["logprobs"]) for choice in answer["choices"]]


def test_200_mixed_requests_equal_their_text_alone(new_server):
    # Few pages: some requests are preempted and prefilled again.
    flags = ("--deterministic", "--kv-cache-tokens", "1536", "--max-model-len", "1024")
    requests = mixed_requests(200, seed=1)
    alone_server = new_server(*flags, "--no-enable-prefix-caching")
    alone = [answer_of(alone_server, body) for body in requests]
    alone_server.stop()

    server = new_server(*flags)
    draw = random.Random(2)

    def together(index):
        if draw.random() < 0.25:  # another client, who leaves at some moment
            stream = raw_stream(server, {**requests[draw.randrange(200)], "stream": True, "max_tokens": 500})
            if draw.random() < 0.5:
                stream.recv(draw.choice([1, 500, 5000]))
            stream.close()
        return answer_of(server, requests[index])

    order = list(range(200))
    draw.shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        results = dict(zip(order, pool.map(together, order)))
    different = [i for i in range(200) if results[i] != alone[i]]
    figures = server.idle()
    figure(f"200 mixed requests, 24 at a time: {200 - len(different)} as alone; "
           f"{figures['qwenrt_num_preemptions_total']:.0f} preemptions, "
           f"{figures['qwenrt_prefix_cache_hits_total']:.0f} tokens from the cache")
    assert not different, [(requests[i], alone[i], results[i]) for i in different[:2]]
