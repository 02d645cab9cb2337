-- note replaces an owner's note.
-- KEYS: position, note
-- ARGV: term, generation, note
-- Returns 1, or 0 if the generation is not the present one.
if redis.call('HGET', KEYS[1], '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
