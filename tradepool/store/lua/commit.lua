-- Commits one batch of one shard: compares, then writes everything or nothing.
--
-- KEYS    every key the batch touches, in any order; all but the fence carry the shard's hash tag. The
--         plan names them by their place in KEYS.
-- ARGV    1 the plan, then values, each named in the plan by its place in ARGV. The plan is one
--         MessagePack array, for one argument costs the server less than the many it would take:
--           hashes      { {hash, fields, expected, values}, ... }
--                       A field's value must begin with what is expected; '' = it must be absent, as
--                       all of them must where expected is nil. Then the fields get the values.
--           digests     {hash, buckets, high halves, low halves, changes of count}
--           touched     {strings, texts}
--                       Each string gets its text appended; see store/changed_ids.py.
--           increments  { {hash, {field, integer, field, integer, ...}}, ... }
--           writes      { {command, key, arguments}, ... }
--           outbox      {stream, names, prefixes, values}, or nil for none. An item is what is stored
--                       of a record (or was, between two changes of it) with a prefix before it.
--           fence       {hash, field, generation}, or nil where nobody need look: the field must have it.
--         Every list is short enough for unpack.
-- RETURNS the outbox id of the batch ('' without an outbox), or the numbers, from 1 in the order of
--         the plan, of the fields that were not as expected; then nothing was written. Behind a fence
--         of another generation it answers as a server does that has no such script.
--
-- Atomic because a server runs one script at a time, and nothing is written before the last check:
-- what was read when the batch was decided still holds when it is written. Amounts never become
-- numbers here (Lua's are doubles); only digest halves and record counts do. A server that is full or
-- may not write refuses the first write, never a later one. A key that somebody gave another type
-- breaks the rule: nothing is rolled back then, and the audit finds the shard's digest wrong.

local call, sub = redis.call, string.sub
local hashes, digests, touched, increments, writes, outbox, fence = unpack(cmsgpack.unpack(ARGV[1]), 1, 7)

if fence and call('HGET', KEYS[fence[1]], fence[2]) ~= fence[3] then
  return redis.error_reply('NOSCRIPT the server is of another generation than ' .. fence[3])
end

-- Bytes that are kept of a user's changed trades: one of so many there ever were, within these bounds. They are
-- cut down to that when they are twice as many, for so much memory they have by then; looked at once in a step.
local KEPT_MIN, CHANGED_PER_KEPT, KEPT_MAX, CUT_STEP, CUT_CHARS = 640, 16, 32768, 256, 16

local failed, checked = {}, 0
for h = 1, #hashes do
  local hash, fields, expected = KEYS[hashes[h][1]], hashes[h][2], hashes[h][3]
  local found = call('HMGET', hash, unpack(fields))
  for i = 1, #fields do
    local value, wanted = found[i], expected and expected[i] or ''
    checked = checked + 1
    if wanted == '' then
      if value then failed[#failed + 1] = checked end
    elseif not value or sub(value, 1, #wanted) ~= wanted then
      failed[#failed + 1] = checked
    end
  end
end
if #failed > 0 then return failed end

-- The first of all writes takes memory: a full server refuses it, and with it the whole batch.
for h = 1, #hashes do
  local fields, values, pairs = hashes[h][2], hashes[h][4], {}
  for i = 1, #fields do
    pairs[2 * i - 1], pairs[2 * i] = fields[i], ARGV[values[i]]
  end
  call('HSET', KEYS[hashes[h][1]], unpack(pairs))
end

local names = touched[1]
for t = 1, #names do
  local name, text = KEYS[names[t]], touched[2][t]
  local length = call('APPEND', name, text)
  if length == #text then
    call('SET', name, string.rep('0', CUT_CHARS) .. text)
  elseif length > 2 * KEPT_MIN and length % CUT_STEP < #text then
    local total = call('GETRANGE', name, 0, CUT_CHARS - 1) + length - CUT_CHARS
    local kept = math.min(math.max(KEPT_MIN, math.floor(total / CHANGED_PER_KEPT)), KEPT_MAX)
    if length > 2 * kept then
      call('SET', name, string.format('%016.0f', total - kept) .. call('GETRANGE', name, -kept, -1))
    end
  end
end

for h = 1, #increments do
  local hash, amounts = KEYS[increments[h][1]], increments[h][2]
  for i = 1, #amounts, 2 do
    call('HINCRBY', hash, amounts[i], amounts[i + 1])
  end
end

for w = 1, #writes do
  call(writes[w][1], KEYS[writes[w][2]], unpack(writes[w][3]))
end

local position = ''
if outbox then
  local names, prefixes, values, items = outbox[2], outbox[3], outbox[4], {}
  for i = 1, #names do
    items[2 * i - 1], items[2 * i] = names[i], prefixes[i] .. ARGV[values[i]]
  end
  position = call('XADD', KEYS[outbox[1]], '*', unpack(items))
end

-- bit works on 32 bits, a digest has 64: two halves.
local hash, buckets = KEYS[digests[1]], digests[2]
local stored, fields = call('HMGET', hash, unpack(buckets)), {}
for i = 1, #buckets do
  local high, low, count, old = digests[3][i], digests[4][i], digests[5][i], stored[i]
  if old then
    high = bit.bxor(tonumber(sub(old, 1, 8), 16), high)
    low = bit.bxor(tonumber(sub(old, 9, 16), 16), low)
    count = count + tonumber(sub(old, 18))
  end
  fields[2 * i - 1] = buckets[i]
  fields[2 * i] = bit.tohex(high) .. bit.tohex(low) .. ':' .. string.format('%.0f', count)
end
if outbox then
  fields[#fields + 1], fields[#fields + 2] = 'position', position
end
call('HSET', hash, unpack(fields))
return position
