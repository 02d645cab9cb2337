-- sweep forgets changes of channels that are gone.
-- KEYS: changed, names, counter
-- ARGV: term, sequence up to which everybody has looked
-- Returns the present sequence.
if redis.call('ZCARD', KEYS[1]) > redis.call('ZCARD', KEYS[2]) + 1 then
  for _, channel in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])) do
    if not redis.call('ZSCORE', KEYS[2], channel) then redis.call('ZREM', KEYS[1], channel) end
  end
end
return tonumber(redis.call('GET', KEYS[3]) or 0)
