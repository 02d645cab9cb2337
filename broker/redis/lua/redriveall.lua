-- redriveall is redrive of letters in their order, some at a time.
-- KEYS: order of letters, letters to be delivered again
-- ARGV: term, sequence number to begin after, and to end with; how many
-- Returns how many now bear the mark that did not, and the last sequence number;
-- that to end with when no more are left.
local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[2], ARGV[3], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local n = 0
for i = 1, #page, 2 do n = n + redis.call('SADD', KEYS[2], page[i]) end
if #page < 2 * tonumber(ARGV[4]) then return {n, ARGV[3]} end
return {n, page[#page]}
