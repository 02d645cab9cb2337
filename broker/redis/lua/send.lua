-- send sends a message.
-- KEYS: a key of the topic's bucket
-- ARGV: term, PUBLISH or SPUBLISH, topic, message
redis.call(ARGV[2], ARGV[3], ARGV[4])
return 1
