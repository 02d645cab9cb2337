-- bury keeps dead letters and moves the position.
-- KEYS: subscription, position, order of letters, texts of letters, letters to be
-- delivered again
-- ARGV: term, generation, most letters, most bytes of them, time before which
-- they are too old (ms), number of cursors; channel, epoch and offset of each;
-- then id, time (ms) and data of each letter
-- A text is "- time data". The subscription counts as z how long all texts are.
-- Returns how many letters fell out, or -1 if the generation is not the present
-- one.
local key, order, texts, again = KEYS[1], KEYS[3], KEYS[4], KEYS[5]
if redis.call('HGET', KEYS[2], '') ~= ARGV[2] then return -1 end
local cursors = tonumber(ARGV[6])
redis.call('HINCRBY', key, 'q', 0) -- the first write, which may be refused
advance(KEYS[2], 7, cursors)
local bytes = tonumber(redis.call('HGET', key, 'z') or 0)
for i = 7 + 3 * cursors, #ARGV, 3 do
  local id, text = ARGV[i], '- ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2]
  redis.call('SREM', again, id)
  if not redis.call('ZSCORE', order, id) then
    redis.call('ZADD', order, redis.call('HINCRBY', key, 'q', 1), id)
  end
  bytes = bytes - redis.call('HSTRLEN', texts, id) + #text
  redis.call('HSET', texts, id, text)
end
local dropped = 0
local function drop(id)
  bytes = bytes - redis.call('HSTRLEN', texts, id)
  redis.call('HDEL', texts, id)
  redis.call('ZREM', order, id)
  redis.call('SREM', again, id)
  dropped = dropped + 1
end
for _, id in ipairs(redis.call('ZRANGE', order, 0, -tonumber(ARGV[3]) - 1)) do drop(id) end
while true do
  local oldest = redis.call('ZRANGE', order, 0, 1)
  local id = oldest[1]
  local time = id and string.match(redis.call('HGET', texts, id), '^. (%d+)')
  if not time or tonumber(time) >= tonumber(ARGV[5]) and (bytes <= tonumber(ARGV[4]) or not oldest[2]) then break end
  drop(id)
end
redis.call('HSET', key, 'z', int(math.max(0, bytes)))
return dropped
