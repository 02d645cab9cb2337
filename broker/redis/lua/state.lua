-- state returns epoch, first, head, bytes and forks of a log, then the bucket's
-- sequence and the name of its incarnation. The first five are '' if there is
-- no log.
-- KEYS: meta, counter, changed
local s = state(KEYS[1]) or {'', '', '', '', ''}
s[6] = redis.call('GET', KEYS[2]) or '0'
s[7] = redis.call('ZRANGE', KEYS[3], -1, -1)[1] or ''
return s
