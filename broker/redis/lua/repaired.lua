-- repaired tells whether it was seen to that this master has forgotten nothing.
-- KEYS: repaired
-- ARGV: term
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
