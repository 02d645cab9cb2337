-- trim removes what retention no longer keeps, a bounded piece at a time.
-- KEYS: meta, log
-- ARGV: replay age in ms, replay events, most age in ms, most bytes (0: no such
-- bound), the offset up to which nobody needs events any more (-1: all), most
-- events to remove, time or ''
-- Returns 1 if there is more to remove, first, head, bytes, and the offset up to
-- which replay alone would remove; nil if there is no log.
local s = state(KEYS[1])
if not s then return nil end
local log, first, head, bytes = KEYS[2], tonumber(s[2]), tonumber(s[3]), tonumber(s[4])
local replay_age, replay_events = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_age, max_bytes, needed, piece = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local count, clock = head - first + 1, now(ARGV[7])
if count <= 0 then return {0, int(first), int(head), int(bytes), int(head)} end
if needed < 0 then needed = head end

local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local since = oldest and tonumber(oldest[2][2]) or clock
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
  redis.call('HSET', KEYS[1], 'n', int(first), 'b', int(bytes))
end
return {more and 1 or 0, int(first), int(head), int(bytes), int(replay)}
