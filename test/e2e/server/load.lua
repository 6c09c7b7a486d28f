-- What wrk sends and what it makes of the answers, for load.py: completions that are streamed, no two alike.
-- LOAD_TOKENS: tokens of each answer. Prints one line of JSON behind wrk's own report.
local threads = {}

function setup(thread)
  thread:set("first", #threads * 1000000)
  table.insert(threads, thread)
end

function init()
  sent, answers, broken, pinged = first, 0, 0, 0
  tokens = tonumber(os.getenv("LOAD_TOKENS"))
end

function request()
  sent = sent + 1
  local body = string.format('{"prompt":"request %d","max_tokens":%d,"ignore_eos":true,"temperature":0.7,"seed":%d,"stream":true}',
                             sent % 5000, tokens, sent)
  return wrk.format("POST", "/v1/completions", { ["content-type"] = "application/json" }, body)
end

-- An answer counts when there was text and the end was said: bytes of a token may wait for the next, so that events are
-- fewer than tokens. A text may hold the word "error", an error object begins its event.
function response(status, headers, body)
  answers = answers + 1
  local _, events = body:gsub('"text":"', "")
  if status ~= 200 or events < 1 or not body:find("data: [DONE]", 1, true) or body:find('data: {"error"', 1, true) then
    broken = broken + 1
  end
  if body:find(": ping", 1, true) then pinged = pinged + 1 end
end

function done(summary, latency, requests)
  local sums = { answers = 0, broken = 0, pinged = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local e = summary.errors
  print(string.format('{"seconds": %.3f, "answers": %d, "broken": %d, "pinged": %d, "lost": %d}', summary.duration / 1e6,
                      sums.answers, sums.broken, sums.pinged, e.connect + e.read + e.write + e.timeout))
end
