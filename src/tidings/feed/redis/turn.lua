-- Everything that a node asks of the feed, in one step that no other node comes between.
--
-- feed    hash: id, server, last (number given), beats (since then), clock, floor, time (of the server), age, began
-- news    stream: `number-0` is news, numbered by its last change; `number-beat` a beat behind it
-- open    stamps by message id, scored by the stamp;  opened: the same, scored by the age at which they expire from
-- expired message ids whose stamps ran out;  anew: mailboxes, scored by the last timestamp given anew in them
-- taken   of the asking node: the feed's id and the number of its last batch that was taken
--
-- ARGV[1] is what is asked (`Ask` in wire.py), the others are the payloads of its batches; the answer is `Told`.

local feed, news, open, opened, expired, anew, taken = unpack(KEYS)
local ask = cmsgpack.unpack(ARGV[1])

local EXPIRED_MAX = 100000
local TAKEN_MS = 3600000
local STEP_MS = 1000 -- time counts for no more than this between two turns, whatever the server's clock did

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A server that was restarted, or became primary, may go on behind what readers have seen: that is another feed.
local server = redis.call('INFO', 'server'):match('run_id:(%x+)')
  .. redis.call('INFO', 'replication'):match('master_replid:(%x+)')

local held = redis.call('HMGET', feed, 'id', 'server', 'last', 'beats', 'clock', 'floor', 'time', 'age', 'began')
local id, last, beats = held[1], tonumber(held[3] or 0), tonumber(held[4] or 0)
local clock, floor, age = tonumber(held[5] or 0), tonumber(held[6] or 0), tonumber(held[8] or 0)
local began = tonumber(held[9] or 0)

if not id or held[2] ~= server then
  if ask.found < 0 then
    return cmsgpack.pack({id = ''}) -- a feed begins at the store's floor, which must be told
  end
  redis.call('DEL', news, open, opened)
  id, last, beats, age, floor = ask.seed, 0, 0, 0, math.max(floor, ask.found)
  clock = math.max(clock, ask.found)
  began = clock
  if began > 0 then
    -- Stamps that an earlier feed gave may be open still. They are later than this: than what it said to be settled,
    -- and than `expire` before its last moment, which was at most `ahead` before the floor. It expires as they would.
    redis.call('ZADD', open, math.max(ask.shown + 1, began - ask.expire_ms - ask.ahead_ms), '')
    redis.call('ZADD', opened, 0, '')
  end
elseif ask.id ~= '' and ask.id ~= id then
  return cmsgpack.pack({id = id})
else
  local before = redis.call('ZSCORE', open, '')
  if before and tonumber(before) <= ask.shown then -- another node has heard more of the earlier feed
    redis.call('ZADD', open, ask.shown + 1, '')
  end
  age = age + math.max(0, math.min(STEP_MS, now - tonumber(held[7])))
  if ask.found > floor then -- a node that begins brings a floor of which nobody told yet
    floor = ask.found
    if floor > math.max(clock, now) + ask.ahead_ms then -- no node has raised it so far: it was an import
      clock = floor
    end
  end
end

-- What was shown as settled is below the clock, and the clock never passes the floor, where the next feed begins.
floor = math.max(floor, ask.floor)
clock = math.max(clock, math.min(now, floor))

local function settled()
  local first = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')
  return math.min(clock, tonumber(first[2] or clock)) - 1
end

local function close(name)
  redis.call('ZREM', opened, name)
  return redis.call('ZREM', open, name) == 1
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', opened, '-inf', age - ask.expire_ms, 'LIMIT', 0, 1000)) do
  close(name)
  if name ~= '' then
    redis.call('ZADD', expired, clock, name)
    redis.call('ZREMRANGEBYRANK', expired, 0, -EXPIRED_MAX - 1)
  end
end
for _, name in ipairs(ask.drops) do
  close(name)
end

-- The timestamp under which a message is told: its own, but a later one if that may have been passed by now.
local function stamp(name, timestamp, mailboxes)
  local given = timestamp
  if not close(name) then
    local is_late = redis.call('ZREM', expired, name) == 1 or timestamp < began
    if is_late and timestamp <= settled() then
      given = clock
    end -- else it was told before: this is a retry's announcement
  end
  for _, mailbox in ipairs(mailboxes) do -- along a mailbox timestamps increase, after one given anew too
    given = math.max(given, tonumber(redis.call('ZSCORE', anew, mailbox) or -1) + 1)
  end
  if given ~= timestamp then
    for _, mailbox in ipairs(mailboxes) do
      redis.call('ZADD', anew, given, mailbox)
    end
  end
  clock = math.max(clock, math.min(given + 1, floor)) -- so that it is settled once nothing else is open
  return given
end

local function add(beat, header, ...)
  local place = string.format('%.0f-%.0f', last, beat)
  redis.call('XADD', news, 'MAXLEN', '~', ask.keep, place, 'h', cmsgpack.pack(header), ...)
end

local mark = redis.call('GET', taken)
local of, number = string.match(mark or '', '^(%x+):(%d+)$')
local done = of == id and tonumber(number) or 0
local positions, count_anew, has_news = {}, 0, false
for index, batch in ipairs(ask.batches) do
  if batch.number > done then
    local later = {}
    for _, posted in ipairs(batch.posted) do
      local given = stamp(posted.name, posted.timestamp, posted.mailboxes)
      if given ~= posted.timestamp then
        later[#later + 1] = {posted.index, given}
      end
    end
    count_anew = count_anew + #later
    last, beats, done, has_news = last + batch.count, 0, batch.number, true
    add(0, {id, settled(), batch.count, later, clock}, 'e', ARGV[index + 1])
  end
  positions[index] = last
end
if has_news then
  redis.call('SET', taken, id .. ':' .. string.format('%.0f', done), 'PX', TAKEN_MS)
end

local stamps = {}
for index, name in ipairs(ask.opens) do
  if math.max(clock, now) >= floor then
    stamps[index] = 0 -- the floor must be raised before
  else
    stamps[index] = clock
    redis.call('ZADD', open, clock, name)
    redis.call('ZADD', opened, age, name)
  end
end

local bound = settled()
if ask.is_beat and not has_news then
  beats = beats + 1
  add(beats, {id, bound, 0, {}, clock})
end
redis.call('ZREMRANGEBYSCORE', anew, '-inf', bound)
redis.call('HSET', feed, 'id', id, 'server', server, 'last', last, 'beats', beats, 'clock', clock, 'floor', floor,
  'time', now, 'age', age, 'began', began)
return cmsgpack.pack({
  id = id, last = last, beats = beats, settled = bound, now = math.max(clock, now), floor = floor,
  positions = positions, stamps = stamps, anew = count_anew,
})
