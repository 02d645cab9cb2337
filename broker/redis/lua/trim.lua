-- trim removes what retention no longer keeps, a bounded piece at a time, and
-- says when the channel is to be visited again if nothing is appended to it.
-- KEYS: meta, log, changed, visits, bytes, backlogs
-- ARGV: replay age in ms, replay events, most age in ms, most bytes (0: no such
-- bound), the offset up to which nobody needs events any more (-1: all), most
-- events to remove, time or '', channel, ms between visits, sequence up to which
-- everybody has looked
-- Returns 1 if there is more to remove, first, head, bytes, and the offset up to
-- which replay alone would remove; nil if there is no log.
--
-- bytes counts what the bucket's logs hold, as of their last visits: meta has as
-- b0 what is counted of this one. backlogs has what is kept by need alone.
local meta, log, changed, visits, total, backlogs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local channel, clock, pause = ARGV[8], now(ARGV[7]), tonumber(ARGV[9])
local s = state(meta)
if not s then
  -- That it was dropped is told until everybody had the time to look.
  redis.call('ZREM', backlogs, channel)
  local at = redis.call('ZSCORE', changed, channel)
  if at and tonumber(at) > tonumber(ARGV[10]) then
    redis.call('ZADD', visits, int(clock + pause), channel)
  else
    redis.call('ZREM', changed, channel)
    redis.call('ZREM', visits, channel)
  end
  return nil
end
local first, head, bytes = tonumber(s[2]), tonumber(s[3]), tonumber(s[4])
local replay_age, replay_events = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_age, max_bytes, needed, piece = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local count = head - first + 1
if needed < 0 then needed = head end

local function oldest()
  local one = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  return one and tonumber(one[2][2]) or clock
end

-- counted notes what the log holds.
local function counted()
  local was = tonumber(redis.call('HGET', meta, 'b0') or 0)
  if was ~= bytes then
    redis.call('INCRBY', total, int(bytes - was))
    redis.call('HSET', meta, 'b0', int(bytes))
  end
end

-- again says when something can be removed next, if ever.
local function again(replay)
  local at
  if replay >= first then -- waits for somebody's acknowledgement: ask seldom what waits for long
    at = clock + (clock - oldest()) / 16
    redis.call('ZADD', backlogs, math.floor(bytes * (replay - first + 1) / (head - first + 1)), channel)
  else
    redis.call('ZREM', backlogs, channel)
    if head - first + 1 > replay_events then at = oldest() + replay_age end
  end
  if max_age > 0 then at = math.min(at or math.huge, oldest() + max_age) end
  if at then
    redis.call('ZADD', visits, int(math.max(at, clock + pause)), channel)
  else
    redis.call('ZREM', visits, channel)
  end
end

if count <= 0 then
  counted()
  redis.call('ZREM', backlogs, channel)
  if head > 0 then redis.call('ZREM', visits, channel) end -- see collect.lua for what is as new
  return {0, int(first), int(head), int(bytes), int(head)}
end

local since = oldest()
local function older(ms)
  if since >= clock - ms then return first - 1 end
  return before(log, first, head, clock - ms)
end
-- Kept for replay: so long or so many, whichever is more.
local replay = head - replay_events
if replay >= first and replay_age > 0 then replay = math.min(replay, older(replay_age)) end
replay = math.max(replay, first - 1)

local cut = math.max(first - 1, math.min(replay, needed))
if max_age > 0 then cut = math.max(cut, older(max_age)) end
if max_bytes > 0 and bytes > max_bytes then
  cut = math.max(cut, first - 1 + math.ceil((bytes - max_bytes) / (bytes / count)))
end
cut = math.min(cut, head)
local more = cut - first + 1 > piece
if more then cut = first + piece - 1 end
if cut >= first then
  redis.call('XTRIM', log, 'MINID', '=', int(cut + 1) .. '-0')
  bytes, first = math.floor(bytes * (head - cut) / count), cut + 1
  redis.call('HSET', meta, 'n', int(first), 'b', int(bytes))
end
counted()
if first <= head then again(replay) else redis.call('ZREM', backlogs, channel); redis.call('ZREM', visits, channel) end
return {more and 1 or 0, int(first), int(head), int(bytes), int(replay)}
