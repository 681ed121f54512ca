/**
 * The payloads of the protocol as arrays, in the order of SPEC.md: what each verb holds, with the
 * limits, for reading and for writing. Reading fills in defaults and passes over what a later version
 * added at the end.
 */
import { FrameError } from "./errors.js";
import { decode, encode } from "./messagepack.js";

export const BATCH_MAX = 4096;
export const NOTE_MAX = 300;
export const FRAME_BYTES_MAX = 16 * 1024 * 1024;
export const FRAME_SPARE = 64;
export const ACK = 0;
export const RETRY = 1;
export const REJECT = 2;

const INT_MAX = 2n ** 63n - 1n;
const NAME = /^[a-z][a-z0-9_-]{0,63}$/;
const TYPE = /^(?=.{1,128}$)[a-z0-9_]+(\.[a-z0-9_]+)+$/;

const int = (least = 0, most = INT_MAX) => ({
  takes: (value) =>
    (Number.isSafeInteger(value) || typeof value === "bigint") && value >= least && value <= most,
});
/** Text, measured in characters (code points: neither bytes nor units of UTF-16). */
const str = (least = 0, most = Infinity) => ({
  takes: (value) =>
    typeof value === "string" && value.length >= least &&
    (value.length <= most || (value.length <= 2 * most && [...value].length <= most)),
});
/** Text, measured in bytes. */
const bytesOfText = (most) => ({
  takes: (value) => typeof value === "string" && Buffer.byteLength(value) <= most,
});
const matching = (pattern) => ({ takes: (value) => typeof value === "string" && pattern.test(value) });
const bin = (most = Infinity) => ({ takes: (value) => value instanceof Uint8Array && value.length <= most });
const bool = () => ({ takes: (value) => typeof value === "boolean" });
const array = (of, least = 0, most = Infinity) => ({ of, least, most });
const shape = (name) => ({ shape: name });
const or = (field, fallback) => ({ ...field, fallback });
const orNil = (field) => ({ ...field, nil: true, fallback: null });
const nothing = Buffer.alloc(0);

const SHAPES = {
  HELLO: [array(int(), 0, 64), matching(NAME), or(str(0, 128), "")],
  WELCOME: [int(), str(), str(), int(), int(), int(), int(), or(int(), FRAME_BYTES_MAX)],
  PUBLISH: [int(), array(shape("message"), 1, BATCH_MAX)],
  ACCEPTED: [array(int())],
  REFUSED: [int(), array(shape("refusal"))],
  refusal: [int(), str(), str(), orNil(int())],
  CREDIT: [matching(NAME), int(0, 100_000), orNil(bool())],
  DELIVER: [str(), array(shape("delivery"))],
  delivery: [int(), int(), shape("message"), or(str(0, 64), "")],
  SETTLE: [array(shape("settlement"), 1, BATCH_MAX)],
  settlement: [
    int(), or(int(0, 2), ACK), orNil(int(0, 2n ** 53n)), orNil(str(0, NOTE_MAX)), orNil(str(0, 64)),
    or(bool(), false),
  ],
  REQUEST: [int(), matching(NAME), int(1, 600_000), shape("message")],
  REPLY: [
    int(), or(str(0, 64), ""), or(str(0, NOTE_MAX), ""), or(str(0, 256), "application/json"),
    or(bin(), nothing),
  ],
  REPORT: [bin(16384)],
  PING: [or(int(), 0)],
  PONG: [or(int(), 0)],
  BYE: [or(str(), "")],
  ERROR: [str(), str(), or(str(), ""), orNil(int())],
  message: [
    str(1, 128), matching(TYPE), str(0, 64), str(0, 256), int(), or(int(0, 3), 2), orNil(int()),
    orNil(int()), orNil(bytesOfText(256)), orNil(bytesOfText(4096)), orNil(bytesOfText(256)),
    or(bytesOfText(256), "application/json"), or(bin(), nothing),
  ],
};
const BOTH = ["REQUEST", "REPLY", "PING", "PONG", "BYE", "ERROR"];
/** What a peer says. */
export const TO_ROUTER = new Set(["HELLO", "PUBLISH", "CREDIT", "SETTLE", "REPORT", ...BOTH]);
/** What a peer hears. */
export const TO_PEER = new Set(["WELCOME", "ACCEPTED", "REFUSED", "DELIVER", ...BOTH]);

/**
 * Return the fields of a shape with defaults filled in. Throws FrameError, whose sentence names the
 * place and never what stands there.
 * @param {string} name a verb, or "message", "delivery", "settlement"
 * @param {unknown} given
 * @returns {unknown[]}
 */
export function check(name, given) {
  if (!Array.isArray(given)) throw broken(name, "expected an array");
  return SHAPES[name].map((field, at) => {
    if (at < given.length) return valueOf(field, given[at], name, at);
    if ("fallback" in field) return field.fallback;
    throw broken(name, `field ${at} is missing`);
  });
}

function valueOf(field, value, name, at) {
  if (value === null && field.nil) return null;
  if (field.shape) return check(field.shape, value);
  if (!field.of) {
    if (field.takes(value)) return value;
  } else if (Array.isArray(value) && value.length >= field.least && value.length <= field.most) {
    return value.map((one) => valueOf(field.of, one, name, at));
  }
  throw broken(name, `field ${at} is not as the specification says`);
}

function broken(name, what) {
  return new FrameError(name === "message" ? "bad_message" : "bad_frame", `${name}: ${what}`);
}

/**
 * Read the parts of one ZeroMQ message. Throws FrameError.
 * @param {Uint8Array[]} parts
 * @param {Set<string>} verbs those that may be heard
 * @returns {[string, unknown[]]} the verb and its fields
 */
export function read(parts, verbs = TO_PEER) {
  if (parts.length !== 2) throw new FrameError("bad_frame", "expected 2 frames [verb, payload]");
  const verb = Buffer.from(parts[0]).toString("latin1");
  if (!verbs.has(verb)) throw new FrameError("unknown_verb", "this verb is not known here");
  try {
    return [verb, check(verb, decode(parts[1]))];
  } catch (error) {
    throw error instanceof FrameError ? new FrameError("bad_frame", error.sentence) : error;
  }
}

/** Make the payload of a verb. Throws FrameError for what breaks the specification. */
export function write(verb, fields) {
  return encode(check(verb, fields));
}

/** Return a text that may be a note: whole characters, at most so many. @returns {string} */
export function words(note, most = NOTE_MAX) {
  return [...String(note)].slice(0, most).map((one) => one.replace(/\p{Surrogate}/u, "\ufffd")).join("");
}
