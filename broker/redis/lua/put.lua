-- put sets a key to a value, or where there is none, to the term.
-- KEYS: the key
-- ARGV: term, value or nothing
redis.call('SET', KEYS[1], ARGV[2] or ARGV[1])
return 1
