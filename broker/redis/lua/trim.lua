-- trim removes what retention no longer keeps, a bounded piece at a time.
-- KEYS: meta, log
-- ARGV: replay age in ms, replay events, most age in ms, most bytes, the offset
-- up to which nobody needs events any more (-1: all), most events to remove,
-- time or ''; where a most is 0 there is none.
-- Returns first, head, bytes and 1 if there is more to remove; nil if there is
-- no log.
local s = state(KEYS[1])
if not s then return nil end
local log, first, head, bytes = KEYS[2], tonumber(s[2]), tonumber(s[3]), tonumber(s[4])
local replay_age, replay_events = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_age, max_bytes, needed, piece = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local count, clock = head - first + 1, now(ARGV[7])
if count <= 0 then return {int(first), int(head), int(bytes), 0} end
if needed < 0 then needed = head end

local cut = first - 1
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local since = oldest and tonumber(oldest[2][2]) or clock
local function older(ms)
  if since >= clock - ms then return first - 1 end
  return before(log, first, head, clock - ms)
end
-- Kept for replay: so long or so many, whichever is more.
local spare = math.min(needed, head - replay_events)
if spare > cut then cut = math.max(cut, math.min(spare, older(replay_age))) end
if max_age > 0 then cut = math.max(cut, older(max_age)) end
if max_bytes > 0 and bytes > max_bytes then
  cut = math.max(cut, first - 1 + math.ceil((bytes - max_bytes) / (bytes / count)))
end
cut = math.min(cut, head)
if cut < first then return {int(first), int(head), int(bytes), 0} end

local more = cut - first + 1 > piece
if more then cut = first + piece - 1 end
redis.call('XTRIM', log, 'MINID', '=', int(cut + 1) .. '-0')
bytes = math.floor(bytes * (head - cut) / count)
redis.call('HSET', KEYS[1], 'n', int(cut + 1), 'b', int(bytes))
return {int(cut + 1), int(head), int(bytes), more and 1 or 0}
