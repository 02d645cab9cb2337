-- redrive marks letters to be delivered again.
-- KEYS: order of letters, letters to be delivered again
-- ARGV: term; then cursors
-- Returns how many now bear the mark that did not.
local n = 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then n = n + redis.call('SADD', KEYS[2], ARGV[i]) end
end
return n
