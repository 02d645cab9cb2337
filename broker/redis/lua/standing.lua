-- standing returns a position's fields and values.
-- KEYS: position
return redis.call('HGETALL', KEYS[1])
