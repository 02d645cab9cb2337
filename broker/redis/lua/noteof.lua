-- noteof returns a note, or nil.
-- KEYS: note
return redis.call('GET', KEYS[1])
