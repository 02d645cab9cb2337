-- remove drops letters.
-- KEYS: subscription, order of letters, texts of letters
-- ARGV: term, 1 for all; then ids
-- Returns how many there were.
if ARGV[2] == '1' then
  local n = redis.call('ZCARD', KEYS[2])
  redis.call('UNLINK', KEYS[2], KEYS[3])
  redis.call('HDEL', KEYS[1], 'y')
  return n
end
local n = 0
for i = 3, #ARGV do
  local text = redis.call('HGET', KEYS[3], ARGV[i])
  if text then
    if string.sub(text, 1, 1) == '+' then redis.call('HINCRBY', KEYS[1], 'y', -1) end
    redis.call('HDEL', KEYS[3], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    n = n + 1
  end
end
return n
