-- Commits one batch of one shard: compares, then writes everything or nothing.
--
-- KEYS    every key the batch touches, in any order; all carry the shard's hash tag. ARGV names them
--         by their place in KEYS.
-- ARGV    one list of numbers and texts, read from left to right. <n> stands before what it counts:
--           checks      <n> x { hash, <m>, m fields, m expected }
--                       A field's value must begin with what is expected; '' = it must be absent.
--           digests     hash, <n> x { bucket, first 8 hex, last 8 hex, change of count }
--           increments  <n> x { hash, <m>, m x (field, integer) }
--           writes      <n> x { command, key, <m>, m arguments }, m small enough for unpack
--           outbox      stream, or 0 for none, then <m>, m arguments of XADD after the id
-- RETURNS the outbox id of the batch ('' without an outbox), or the numbers, from 1 in the order of
--         ARGV, of the checks that failed; then nothing was written.
--
-- Atomic because a server runs one script at a time, and nothing is written before the last check:
-- what was read when the batch was decided still holds when it is written. Amounts never become
-- numbers here (Lua's are doubles); only digest halves and record counts do. A server that is full or
-- may not write refuses the first write, never a later one. A key that somebody gave another type
-- breaks the rule: nothing is rolled back then, and the audit finds the shard's digest wrong.

local call, sub = redis.call, string.sub
local at = 0

local function take()
  at = at + 1
  return ARGV[at]
end

local function take_number()
  at = at + 1
  return tonumber(ARGV[at])
end

local function take_key()
  return KEYS[take_number()]
end

-- Skips the next n arguments and returns where they begin and end.
local function take_range(n)
  local first = at + 1
  at = at + n
  return first, at
end

local failed, checked = {}, 0
for _ = 1, take_number() do
  local hash, n = take_key(), take_number()
  local first, last = take_range(n)
  local values = call('HMGET', hash, unpack(ARGV, first, last))
  take_range(n)
  for i = 1, n do
    local value, expected = values[i], ARGV[last + i]
    checked = checked + 1
    if expected == '' then
      if value then failed[#failed + 1] = checked end
    elseif not value or sub(value, 1, #expected) ~= expected then
      failed[#failed + 1] = checked
    end
  end
end
if #failed > 0 then return failed end

-- bit works on 32 bits, a digest has 64: two halves.
local function xor_hex(one, other)
  return bit.tohex(bit.bxor(tonumber(one, 16), tonumber(other, 16)))
end

local digest_hash = take_key()
for _ = 1, take_number() do
  local bucket, high, low, count = take(), take(), take(), take_number()
  local old = call('HGET', digest_hash, bucket)
  if old then
    high, low = xor_hex(sub(old, 1, 8), high), xor_hex(sub(old, 9, 16), low)
    count = count + tonumber(sub(old, 18))
  end
  call('HSET', digest_hash, bucket, high .. low .. ':' .. string.format('%.0f', count))
end

for _ = 1, take_number() do
  local hash = take_key()
  for _ = 1, take_number() do
    call('HINCRBY', hash, take(), take())
  end
end

for _ = 1, take_number() do
  local command, key = take(), take_key()
  call(command, key, unpack(ARGV, take_range(take_number())))
end

local stream = take_number()
if stream == 0 then return '' end
local position = call('XADD', KEYS[stream], '*', unpack(ARGV, take_range(take_number())))
call('HSET', digest_hash, 'position', position)
return position
