-- drop removes a log and tells its followers.
-- KEYS: meta, log, changed, counter, names, waiting, woken, moves, both hashes
-- of identities, bytes
-- ARGV: topic, PUBLISH or SPUBLISH, channel, topic of what is due
-- Returns 1, or nil if there is no log.
local counted = redis.call('HGET', KEYS[1], 'b0')
if redis.call('DEL', KEYS[1]) == 0 then return nil end
if counted then redis.call('DECRBY', KEYS[11], counted) end
redis.call('UNLINK', KEYS[2], KEYS[9], KEYS[10])
redis.call('ZREM', KEYS[5], ARGV[3])
local seq = note(KEYS[3], KEYS[4], ARGV[3], ARGV[3])
redis.call(ARGV[2], ARGV[1], '')
wake(KEYS[6], KEYS[7], KEYS[8], ARGV[3], seq, '', 0, ARGV[4], ARGV[2])
return 1
