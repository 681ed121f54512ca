#!/usr/bin/env bash
# @msgpack/msgpack 3.1.3 (Node 20): whether a string comes back whole depends on its length.
#
# Expected: decode(encode(text)) is text, for every string. Seen: of a text that begins with U+FEFF the
# first character is lost when the text is longer than 200 bytes in UTF-8, and only then. Short strings
# are decoded by the library's own code, longer ones by a TextDecoder without `ignoreBOM`, which takes the
# character for a byte order mark. (That decoder is not `fatal` either: of text that is not UTF-8, which
# others may send, no error tells.)
set -euo pipefail
command -v npm >/dev/null || { echo "needs Node and npm: apt-get install nodejs npm" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @msgpack/msgpack@3.1.3
cat > look.mjs <<'END'
import { decode, encode } from "@msgpack/msgpack";

const comesBack = (bytes) => {
  const text = "\ufeff" + "1".repeat(bytes - 3);
  return decode(encode(text)) === text;
};
const seen = [10, 200, 201, 1000].map((bytes) => [bytes, comesBack(bytes)]);
console.log("bytes, and whether the text came back as it was:", JSON.stringify(seen));
process.exit(JSON.stringify(seen) === "[[10,true],[200,true],[201,false],[1000,false]]" ? 0 : 1);
END
node look.mjs
echo "as described"
