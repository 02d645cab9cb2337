-- append adds events to a channel's log, all or none, and announces them.
-- KEYS: meta, log, changed, counter, names, waiting, woken, moves; with
-- identities also the two hashes that remember them.
-- ARGV: run id, an epoch in case one is needed, topic, PUBLISH or SPUBLISH,
-- channel, 1 to keep events or 0, deduplication window in ms, how many bytes
-- an announcement carries, time or '', topic of what is due; then identity and
-- data of each event.
-- Returns epoch, then an offset per event, negative for a duplicate.
--
-- All is written or nothing: Redis may refuse the first write of a script for
-- want of memory, but none after it. So the first is one that needs memory.
local meta, log = KEYS[1], KEYS[2]
local term, fresh, topic, publish, channel = reign(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keep, window, carry = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])

local m = redis.call('HMGET', meta, 'e', 't', 'h', 'a', 'b', 'z', 'n', 'f')
local epoch, head, bytes = m[1], tonumber(m[3] or 0), tonumber(m[5] or 0)
local largest, first, forks = tonumber(m[6] or 0), tonumber(m[7] or 1), m[8] or ''
local clock = now(ARGV[9])
local time = math.max(clock, tonumber(m[4] or 0))

-- Identities live in two hashes that take turns, a window each; the field ''
-- tells which turn a hash is from. A value is "offset:ms since the turn began".
local ids, earlier, turn, stale
if KEYS[9] then
  turn = math.floor(clock / window)
  ids, earlier = KEYS[9 + turn % 2], KEYS[9 + (turn + 1) % 2]
  stale = not epoch or redis.call('HGET', ids, '') ~= int(turn)
  if not epoch or redis.call('HGET', earlier, '') ~= int(turn - 1) then earlier = nil end
end

local function remembered(hash, id, began)
  local value = hash and redis.call('HGET', hash, id)
  if not value then return nil end
  local offset, ms = string.match(value, '^(%d+):(%d+)$')
  if clock - began - ms < window then return tonumber(offset) end
end

local reply, new, seen = {epoch}, {}, {}
local sizes, datas, total = {}, {}, 0
local last = head
for i = 11, #ARGV, 2 do
  local id, known = ARGV[i], nil
  if id ~= '' then
    known = seen[id] or remembered(not stale and ids, id, turn * window) or remembered(earlier, id, (turn - 1) * window)
  end
  if known then
    reply[#reply + 1] = -known
  else
    last = last + 1
    reply[#reply + 1] = last
    if id ~= '' then seen[id] = last end
    local size, k = #ARGV[i + 1], #new + 1
    new[k], sizes[k], datas[k] = id, size, ARGV[i + 1]
    total, largest = total + size, math.max(largest, size)
  end
end
if #new == 0 then return reply end

if not epoch then
  epoch = fresh
elseif m[2] ~= term then
  -- Another reign than that of the last append: what was appended then may be
  -- forgotten here, so what follows must not look like it.
  local _, commas = string.gsub(forks, ',', ',')
  if commas >= 31 then forks = string.gsub(forks, '^[^,]*,', '', 1) end
  forks = (forks == '' and '' or forks .. ',') .. epoch .. ':' .. int(head)
  epoch = fresh
end
reply[1] = epoch

if keep then bytes = bytes + total else first, bytes = last + 1, 0 end
redis.call('HSET', meta, 'e', epoch, 't', term, 'h', int(last), 'a', int(time),
  'b', int(bytes), 'z', largest, 'n', int(first))
if forks ~= (m[8] or '') then redis.call('HSET', meta, 'f', forks) end
if stale then redis.call('UNLINK', ids) end
if not m[1] then
  redis.call('ZADD', KEYS[5], 0, channel)
  redis.call('UNLINK', log)
end
for k, id in ipairs(new) do
  local offset = int(head + k)
  if keep then redis.call('XADD', log, offset .. '-0', 't', int(time), 'd', datas[k]) end
  if id ~= '' then redis.call('HSET', ids, id, offset .. ':' .. int(clock - turn * window)) end
end
if next(seen) then
  -- A channel that falls silent must not keep its identities for ever.
  if redis.call('HSETNX', ids, '', int(turn)) == 1 then
    redis.call('PEXPIRE', ids, 3 * window)
  end
end

local seq = note(KEYS[3], KEYS[4], channel, fresh)
local text = epoch .. ' ' .. int(head + 1) .. ' ' .. int(last) .. ' ' .. int(seq) .. ' ' .. int(time) .. ' '
if total <= carry then
  text = text .. table.concat(sizes, ',') .. '\n' .. table.concat(datas)
end
redis.call(publish, topic, text)
wake(KEYS[6], KEYS[7], KEYS[8], channel, seq, epoch, int(last), ARGV[10], publish)
return reply
