-- read returns a page of a log, and the log's state of the same moment.
-- KEYS: meta, log
-- ARGV: offset to read after, most events, most bytes
-- Returns epoch, first, head, bytes, forks, the offset of the page's first
-- event, then time and data of each event; nil if there is no log.
local s = state(KEYS[1])
if not s then return nil end
local from, events, room = tonumber(ARGV[1]) + 1, tonumber(ARGV[2]), tonumber(ARGV[3])
from = math.max(from, tonumber(s[2]))
s[6] = int(from)
local largest = math.max(1, tonumber(redis.call('HGET', KEYS[1], 'z')) or 1)
while events > 0 do
  -- As many as surely fit; where not even one surely does, one at a time.
  local n = math.min(events, math.max(1, math.floor(room / largest)))
  local got = redis.call('XRANGE', KEYS[2], int(from) .. '-0', '+', 'COUNT', n)
  for _, item in ipairs(got) do
    local data = item[2][4]
    if #s > 6 and #data > room then return s end
    s[#s + 1] = item[2][2]
    s[#s + 1] = data
    room = room - #data
  end
  if #got < n then return s end
  from, events = from + n, events - n
end
return s
