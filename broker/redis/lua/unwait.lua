-- unwait removes a subscription from those that wait for a channel, unless it
-- was entered by a later version.
-- KEYS: waiting
-- ARGV: term, name, version, channel
waitNoMore(KEYS[1], ARGV[4], ARGV[2], tonumber(ARGV[3]))
return 1
