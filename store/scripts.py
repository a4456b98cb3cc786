"""What runs inside Redis, each as one step: the compare-and-set of an upsert, and forgetting.

Tokens are little-endian (era u32, generation u32, revision u64). A Lua number is a double, exact to
2^53, so 64-bit numbers are compared in halves; and as numbers, since Lua compares strings by the
server's locale. What has not our magic is damaged and holds no token: its bytes could outrank every
true one for ever. A ``recent`` field has no magic; behind its token stands a MessagePack array,
whose first byte is 0x90 to 0x9f, 0xdc or 0xdd. A key of ours that is no hash (or, of a marker, no
string) is somebody's mistake: it goes, or its user's batch would fail for ever.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec


class Script(msgspec.Struct, frozen=True):
    """A script and the name Redis calls it by."""

    text: str
    sha: str


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_SHARED: Final = """
local function newer(a, i, b, j)
  local era_a, generation_a, low_a, high_a = struct.unpack('<I4I4I4I4', string.sub(a, i, i + 15))
  local era_b, generation_b, low_b, high_b = struct.unpack('<I4I4I4I4', string.sub(b, j, j + 15))
  if era_a ~= era_b then return era_a > era_b end
  if generation_a ~= generation_b then return generation_a > generation_b end
  if high_a ~= high_b then return high_a > high_b end
  return low_a > low_b
end
local function later(a, b)
  local low_a, high_a = struct.unpack('<I4I4', string.sub(a, 17, 24))
  local low_b, high_b = struct.unpack('<I4I4', string.sub(b, 17, 24))
  if high_a ~= high_b then return high_a > high_b end
  return low_a > low_b
end
local function sound_vector(raw)
  return raw and #raw >= 64 and string.sub(raw, 1, 3) == 'IUV'
end
local function sound_recent(raw)
  local array = raw and string.byte(raw, 17) or 0
  return (array >= 144 and array <= 159) or array == 220 or array == 221
end
local function obeyed(marker, stored)
  return stored and #stored == 24 and not newer(marker, 1, stored, 1) and not later(marker, stored)
end
local function joined(marker, stored)
  if not stored or #stored ~= 24 then return marker end
  local token, time = string.sub(marker, 1, 16), string.sub(marker, 17, 24)
  if newer(stored, 1, marker, 1) then token = string.sub(stored, 1, 16) end
  if later(stored, marker) then time = string.sub(stored, 17, 24) end
  return token .. time
end
local function token_of(field, raw)
  if field == 'recent' then return sound_recent(raw) and string.sub(raw, 1, 16) end
  return sound_vector(raw) and string.sub(raw, 17, 32)
end
local function keep(key, marker, seconds)
  if seconds == '0' then
    redis.call('SET', key, marker)
  else
    redis.call('SET', key, marker, 'EX', seconds)
  end
  return marker
end
local foreign = false
local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if string.sub(answer.err, 1, 9) ~= 'WRONGTYPE' then return nil, answer end
    redis.call('DEL', key)
    foreign = true
    return false
  end
  return answer
end
"""

#: ``KEYS``: of each user the hash and the marker. Arguments: the model's field, the expiry in
#: seconds (0 keeps the hash), and of each user the field's record and the ``recent`` field. Users
#: share a call because a call costs more than what it does. Answers of each user: nothing where the
#: record was stored, 1 where it was stored in place of a foreign key, else what refused it: the 16
#: bytes of a higher token, or the 24 bytes of a marker. An error ends the call; the users before it
#: are stored, and to store them again is harmless. PERSIST, since HSET leaves the expiry of an
#: earlier setting in place.
UPSERT: Final = _script(
    _SHARED
    + """
local function upsert(user, marked, record, behaviours)
  foreign = false
  local marker, failed = read('GET', marked)
  if failed then return nil, failed end
  if marker and #marker == 24 and not newer(record, 17, marker, 1) then return marker end
  local stored, broken = read('HMGET', user, ARGV[1], 'recent')
  if broken then return nil, broken end
  local vector, recent = stored and stored[1], stored and stored[2]
  if sound_vector(vector) and newer(vector, 17, record, 17) then
    return string.sub(vector, 17, 32)
  end
  if sound_recent(recent) and newer(recent, 1, behaviours, 1) then
    redis.call('HSET', user, ARGV[1], record)
  else
    redis.call('HSET', user, ARGV[1], record, 'recent', behaviours)
  end
  if ARGV[2] ~= '0' then
    redis.call('EXPIRE', user, ARGV[2])
  elseif vector or recent then
    redis.call('PERSIST', user)
  end
  if foreign then return 1 end
  return false
end
local answers = {}
for i = 1, #KEYS, 2 do
  local answer, failed = upsert(KEYS[i], KEYS[i + 1], ARGV[i + 2], ARGV[i + 3])
  if failed then return failed end
  answers[#answers + 1] = answer
end
return answers
"""
)

#: ``KEYS`` as above. Arguments: the marker (token, then the time in ms as 8 bytes), and its expiry
#: in seconds (0 keeps it). Removes the hash whole. Answers the marker that stands now: the greatest
#: token of the given marker, of the one that was there and of every field, and the later time.
#: Where the one that was there says as much already, fields above it stay: whoever wrote them knew
#: it, and the request comes again, or from a worker that was stopped in the middle of it.
FORGET: Final = _script(
    _SHARED
    + """
local stored, failed = read('GET', KEYS[2])
if failed then return failed end
local marker = joined(ARGV[1], stored)
local fields, broken = read('HGETALL', KEYS[1])
if broken then return broken end
fields = fields or {}
local again = obeyed(ARGV[1], stored)
for i = 1, #fields, 2 do
  local token = token_of(fields[i], fields[i + 1])
  if token and newer(token, 1, marker, 1) then
    if not again then marker = token .. string.sub(marker, 17, 24) end
  elseif again then
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
if not again then redis.call('DEL', KEYS[1]) end
return keep(KEYS[2], marker, ARGV[2])
"""
)

#: ``KEYS[1]``: a marker. Argument: the marker. Answers 1 where the one that is there says as much.
KNOWS: Final = _script(
    _SHARED
    + """
local stored, failed = read('GET', KEYS[1])
if failed then return failed end
if obeyed(ARGV[1], stored) then return 1 end
return false
"""
)

#: ``KEYS[1]``: a marker. Arguments as above. Joins the given marker with the one that is there.
MARK: Final = _script(
    _SHARED
    + """
local stored, failed = read('GET', KEYS[1])
if failed then return failed end
return keep(KEYS[1], joined(ARGV[1], stored), ARGV[2])
"""
)

#: ``KEYS`` and arguments of the forgetting. Joins the given marker with the one that is there, and
#: removes the fields that it outranks, and damaged ones. Answers how many.
SWEEP: Final = _script(
    _SHARED
    + """
local stored, failed = read('GET', KEYS[2])
if failed then return failed end
local marker = keep(KEYS[2], joined(ARGV[1], stored), ARGV[2])
local fields, broken = read('HGETALL', KEYS[1])
if broken then return broken end
fields = fields or {}
local removed = 0
for i = 1, #fields, 2 do
  local token = token_of(fields[i], fields[i + 1])
  if not token or not newer(token, 1, marker, 1) then
    removed = removed + redis.call('HDEL', KEYS[1], fields[i])
  end
end
return removed
"""
)

SCRIPTS: Final = (UPSERT, FORGET, KNOWS, MARK, SWEEP)
