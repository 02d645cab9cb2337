-- rename names letters by their events' cursors, as format 2 does.
-- KEYS: subscription, order of letters, texts of letters, letters to be delivered
-- again
-- ARGV: term; then the former and the new name of each
-- Of two letters of one event the last stays. Returns 1.
local order, texts, again = KEYS[2], KEYS[3], KEYS[4]
local bytes = tonumber(redis.call('HGET', KEYS[1], 'z') or 0)
for i = 2, #ARGV, 2 do
  local old, new = ARGV[i], ARGV[i + 1]
  local text, seq = redis.call('HGET', texts, old), redis.call('ZSCORE', order, old)
  if text and seq then
    local there = redis.call('ZSCORE', order, new)
    local marked = redis.call('SREM', again, old)
    redis.call('ZREM', order, old)
    redis.call('HDEL', texts, old)
    if there and tonumber(there) > tonumber(seq) then
      bytes = bytes - #text
    else
      bytes = bytes - redis.call('HSTRLEN', texts, new)
      redis.call('HSET', texts, new, text)
      redis.call('ZADD', order, seq, new)
      redis.call('SREM', again, new)
      if marked == 1 then redis.call('SADD', again, new) end
    end
  end
end
redis.call('HSET', KEYS[1], 'z', int(math.max(0, bytes)))
return 1
