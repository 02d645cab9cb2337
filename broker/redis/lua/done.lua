-- done drops entries that are still hidden as they were when claimed. What
-- became due since is due now.
-- KEYS: due
-- ARGV: term; then entry and time it was hidden until
for i = 2, #ARGV, 2 do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if at and tonumber(at) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
