-- remove drops letters.
-- KEYS: subscription, order of letters, texts of letters, letters to be delivered
-- again
-- ARGV: term, 1 for all; then cursors
-- Returns how many there were.
if ARGV[2] == '1' then
  local n = redis.call('ZCARD', KEYS[2])
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
  redis.call('HDEL', KEYS[1], 'z')
  return n
end
local n = 0
for i = 3, #ARGV do
  local size = redis.call('HSTRLEN', KEYS[3], ARGV[i])
  if redis.call('HDEL', KEYS[3], ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('SREM', KEYS[4], ARGV[i])
    redis.call('HINCRBY', KEYS[1], 'z', -size)
    n = n + 1
  end
end
return n
