-- advance moves a subscription's position.
-- KEYS: position
-- ARGV: term, generation; then channel, epoch and offset of each cursor
-- Returns 1, or 0 if the generation is not the present one.
if redis.call('HGET', KEYS[1], '') ~= ARGV[2] then return 0 end
advance(KEYS[1], 3, (#ARGV - 2) / 3)
return 1
