-- dead returns letters in their order.
-- KEYS: order of letters, texts of letters, letters to be delivered again
-- ARGV: sequence number to begin after, most letters
-- Returns sequence number, id, text of each, and 1 if it is to be delivered again.
local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local list = {}
for i = 1, #page, 2 do
  list[#list + 1] = page[i + 1]
  list[#list + 1] = page[i]
  list[#list + 1] = redis.call('HGET', KEYS[2], page[i])
  list[#list + 1] = redis.call('SISMEMBER', KEYS[3], page[i])
end
return list
