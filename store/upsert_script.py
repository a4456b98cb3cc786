"""The compare-and-set that runs inside Redis: the higher token stays, whoever writes last.

``KEYS[1]`` is a user's hash. Arguments: the model's field, its record, the ``recent`` field, and
the expiry in seconds (0 keeps the hash). Answers nothing where the record was stored, else the 16
bytes of the token that refused it.
"""

from __future__ import annotations

import hashlib
from typing import Final

# Tokens are little-endian (era u32, generation u32, revision u64). A Lua number is a double, exact
# to 2^53, so the revision is compared in halves; and as numbers, since Lua compares strings by the
# server's locale. What has not our magic is damaged and holds no token: its bytes could outrank
# every true one for ever. A ``recent`` field has no magic; behind its token stands a MessagePack
# array, whose first byte is 0x90 to 0x9f, 0xdc or 0xdd. PERSIST, since HSET leaves the expiry of an
# earlier setting in place.
UPSERT: Final = """
local function newer(a, i, b, j)
  local era_a, generation_a, low_a, high_a = struct.unpack('<I4I4I4I4', string.sub(a, i, i + 15))
  local era_b, generation_b, low_b, high_b = struct.unpack('<I4I4I4I4', string.sub(b, j, j + 15))
  if era_a ~= era_b then return era_a > era_b end
  if generation_a ~= generation_b then return generation_a > generation_b end
  if high_a ~= high_b then return high_a > high_b end
  return low_a > low_b
end
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and #stored >= 64 and string.sub(stored, 1, 3) == 'IUV'
    and newer(stored, 17, ARGV[2], 17) then
  return string.sub(stored, 17, 32)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local recent = redis.call('HGET', KEYS[1], 'recent')
local array = recent and string.byte(recent, 17) or 0
local sound = (array >= 144 and array <= 159) or array == 220 or array == 221
if not sound or not newer(recent, 1, ARGV[3], 1) then
  redis.call('HSET', KEYS[1], 'recent', ARGV[3])
end
if ARGV[4] == '0' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return false
"""
UPSERT_SHA: Final = hashlib.sha1(UPSERT.encode(), usedforsecurity=False).hexdigest()
