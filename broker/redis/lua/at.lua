-- at returns the offset of the last event appended before a time.
-- KEYS: meta, log
-- ARGV: ms
-- Returns the offset, or the one before the first; nil if there is no log.
local s = state(KEYS[1])
if not s then return nil end
return int(before(KEYS[2], tonumber(s[2]), tonumber(s[3]), tonumber(ARGV[1])))
