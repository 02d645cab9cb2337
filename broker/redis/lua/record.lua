-- record adds attempts of a subscription's callback.
-- KEYS: subscription, attempts
-- ARGV: term, most attempts, most bytes of them, time before which they are too
-- old (ms), how long the newest is to be kept (ms); then time (ms) and data of
-- each
-- An attempt is "time data". The subscription counts as h how many there were and
-- as b how long all texts are.
-- Returns 1, or 0 if there is no such subscription.
local key, list = KEYS[1], KEYS[2]
if redis.call('EXISTS', key) == 0 then return 0 end
redis.call('HINCRBY', key, 'h', 0) -- the first write, which may be refused
local bytes = tonumber(redis.call('HGET', key, 'b') or 0)
if redis.call('EXISTS', list) == 0 then bytes = 0 end -- it expired
local last
for i = 6, #ARGV, 2 do
  local text = ARGV[i] .. ' ' .. ARGV[i + 1]
  redis.call('HINCRBY', key, 'h', 1)
  last = redis.call('RPUSH', list, text)
  bytes = bytes + #text
end
while last > 1 do
  local text = redis.call('LINDEX', list, 0)
  if last <= tonumber(ARGV[2]) and bytes <= tonumber(ARGV[3]) and tonumber(string.match(text, '^%d+')) >= tonumber(ARGV[4]) then break end
  redis.call('LPOP', list)
  bytes, last = bytes - #text, last - 1
end
redis.call('HSET', key, 'b', int(math.max(0, bytes)))
redis.call('PEXPIRE', list, ARGV[5])
return 1
