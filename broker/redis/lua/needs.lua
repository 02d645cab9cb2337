-- needs returns who follows a channel, with the version that began to.
-- KEYS: following
return redis.call('HGETALL', KEYS[1])
