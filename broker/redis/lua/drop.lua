-- drop removes a log and tells its followers.
-- KEYS: meta, log, changed, counter, names, waiting, due, both hashes of
-- identities
-- ARGV: topic, PUBLISH or SPUBLISH, channel, topic of what is due
-- Returns 1, or nil if there is no log.
if redis.call('DEL', KEYS[1]) == 0 then return nil end
redis.call('UNLINK', KEYS[2], KEYS[8], KEYS[9])
redis.call('ZREM', KEYS[5], ARGV[3])
note(KEYS[3], KEYS[4], ARGV[3], ARGV[3])
redis.call(ARGV[2], ARGV[1], '')
wake(KEYS[6], KEYS[7], ARGV[4], ARGV[2])
return 1
