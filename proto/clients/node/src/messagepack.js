/**
 * What the protocol needs of MessagePack: nil, bool, int, str, bin and array.
 *
 * Text is a string, bytes are a Uint8Array (read: a Buffer), a whole number is a Number where it is
 * exact and a BigInt beyond; no number is ever written as a float.
 */
import { FrameError } from "./errors.js";

const DEPTH_MAX = 16;
// ignoreBOM: else a text that begins with U+FEFF would lose it.
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Stands for what the protocol has no place for (floats, maps, extensions): read to be passed over. */
export const FOREIGN = Symbol("foreign");

/** @param {unknown} value @returns {Buffer} */
export function encode(value) {
  const parts = [];
  write(value, parts);
  return Buffer.concat(parts);
}

/** The head of an array, for whoever has its elements encoded already. @param {number} count */
export function arrayHead(count) {
  if (count < 16) return Buffer.from([0x90 | count]);
  return count < 0x10000 ? head(0xdc, 2, count) : head(0xdd, 4, count);
}

function head(first, size, number) {
  const bytes = Buffer.alloc(1 + size);
  bytes[0] = first;
  bytes.writeUIntBE(number, 1, size);
  return bytes;
}

function write(value, parts) {
  if (value === null) {
    parts.push(Buffer.from([0xc0]));
  } else if (typeof value === "boolean") {
    parts.push(Buffer.from([value ? 0xc3 : 0xc2]));
  } else if (Number.isSafeInteger(value) || typeof value === "bigint") {
    parts.push(integer(value));
  } else if (typeof value === "string") {
    if (/\p{Surrogate}/u.test(value)) throw new FrameError("bad_frame", "half a character in a text");
    const bytes = Buffer.from(value, "utf8");
    parts.push(bytes.length < 32 ? Buffer.from([0xa0 | bytes.length]) : long(0xd9, bytes.length), bytes);
  } else if (value instanceof Uint8Array) {
    parts.push(long(0xc4, value.length), value);
  } else if (Array.isArray(value)) {
    parts.push(arrayHead(value.length));
    for (const one of value) write(one, parts);
  } else {
    throw new FrameError("bad_frame", `the protocol has no place for a ${typeof value}`);
  }
}

function integer(value) {
  if (value >= 0 && value <= 0xffffffff) {
    const small = Number(value);
    if (small < 0x80) return Buffer.from([small]);
    if (small < 0x100) return head(0xcc, 1, small);
    return small < 0x10000 ? head(0xcd, 2, small) : head(0xce, 4, small);
  }
  const bytes = Buffer.alloc(9);
  bytes[0] = value < 0 ? 0xd3 : 0xcf;
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)), 1);
  return bytes;
}

/** The head of a str or bin; `family` is the one with a length of one byte. */
function long(family, length) {
  if (length < 0x100) return head(family, 1, length);
  return length < 0x10000 ? head(family + 1, 2, length) : head(family + 2, 4, length);
}

/**
 * Read one value and nothing after it. Throws FrameError.
 * @param {Buffer} data
 * @returns {unknown}
 */
export function decode(data) {
  const reader = new Reader(data);
  const value = reader.value(0);
  if (reader.at !== data.length) throw new FrameError("bad_frame", "bytes after the payload");
  return value;
}

class Reader {
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  take(length) {
    if (this.data.length - this.at < length) throw new FrameError("bad_frame", "the payload is cut short");
    this.at += length;
    return this.data.subarray(this.at - length, this.at);
  }

  unsigned(size) {
    return this.take(size).readUIntBE(0, size);
  }

  signed(size) {
    return this.take(size).readIntBE(0, size);
  }

  big(unsigned) {
    const bytes = this.take(8);
    const value = unsigned ? bytes.readBigUInt64BE() : bytes.readBigInt64BE();
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  text(length) {
    try {
      return text.decode(this.take(length));
    } catch (error) {
      throw error instanceof FrameError ? error : new FrameError("bad_frame", "text is not UTF-8");
    }
  }

  many(count, depth) {
    if (depth >= DEPTH_MAX) throw new FrameError("bad_frame", "nested too deeply");
    const items = [];
    while (count-- > 0) items.push(this.value(depth + 1));
    return items;
  }

  foreign(length) {
    this.take(length);
    return FOREIGN;
  }

  pairs(count, depth) {
    this.many(2 * count, depth);
    return FOREIGN;
  }

  value(depth) {
    const first = this.take(1)[0];
    if (first < 0x80) return first;
    if (first < 0x90) return this.pairs(first & 15, depth);
    if (first < 0xa0) return this.many(first & 15, depth);
    if (first < 0xc0) return this.text(first & 31);
    if (first >= 0xe0) return first - 256;
    switch (first) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.take(this.unsigned(1));
      case 0xc5: return this.take(this.unsigned(2));
      case 0xc6: return this.take(this.unsigned(4));
      case 0xc7: return this.foreign(this.unsigned(1) + 1);
      case 0xc8: return this.foreign(this.unsigned(2) + 1);
      case 0xc9: return this.foreign(this.unsigned(4) + 1);
      case 0xca: return this.foreign(4);
      case 0xcb: return this.foreign(8);
      case 0xcc: return this.unsigned(1);
      case 0xcd: return this.unsigned(2);
      case 0xce: return this.unsigned(4);
      case 0xcf: return this.big(true);
      case 0xd0: return this.signed(1);
      case 0xd1: return this.signed(2);
      case 0xd2: return this.signed(4);
      case 0xd3: return this.big(false);
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        return this.foreign((1 << (first - 0xd4)) + 1);
      case 0xd9: return this.text(this.unsigned(1));
      case 0xda: return this.text(this.unsigned(2));
      case 0xdb: return this.text(this.unsigned(4));
      case 0xdc: return this.many(this.unsigned(2), depth);
      case 0xdd: return this.many(this.unsigned(4), depth);
      case 0xde: return this.pairs(this.unsigned(2), depth);
      case 0xdf: return this.pairs(this.unsigned(4), depth);
      default: throw new FrameError("bad_frame", "the payload is not MessagePack");
    }
  }
}
