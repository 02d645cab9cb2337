-- redrive marks letters to be delivered again.
-- KEYS: subscription, order of letters, texts of letters
-- ARGV: term, 1 for all; then ids
-- Returns how many now bear the mark that did not.
local ids, from = ARGV, 3
if ARGV[2] == '1' then ids, from = redis.call('ZRANGE', KEYS[2], 0, -1), 1 end
local n = 0
for i = from, #ids do
  local id = ids[i]
  local text = redis.call('HGET', KEYS[3], id)
  if text and string.sub(text, 1, 1) == '-' then
    redis.call('HSET', KEYS[3], id, '+' .. string.sub(text, 2))
    n = n + 1
  end
end
if n > 0 then redis.call('HINCRBY', KEYS[1], 'y', n) end
return n
