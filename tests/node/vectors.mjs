/**
 * The golden vectors in JavaScript: every valid frame means what it should, and is written so that it
 * means the same; of every invalid one its reader says so.
 *
 *   node vectors.mjs FOLDER
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { FrameError } from "../../proto/clients/node/src/index.js";
import { TO_PEER, TO_ROUTER, check, read, write } from "../../proto/clients/node/src/frames.js";
import { decode } from "../../proto/clients/node/src/messagepack.js";

const SHAPE_CODES = new Set(["bad_frame", "unknown_verb", "bad_message"]);

/** JSON.parse would round what is beyond 2^53: such numbers are read as BigInt. */
function load(name) {
  const json = readFileSync(`${process.argv[2]}/${name}.json`, "utf8").replace(/([ [])(\d{17,})(?=[,\]])/g, '$1"big $2"');
  return JSON.parse(json, (_, value) =>
    typeof value === "string" && value.startsWith("big ") ? BigInt(value.slice(4)) : value,
  );
}

function meaningOf(value) {
  if (Array.isArray(value)) return value.map(meaningOf);
  return value instanceof Uint8Array ? { hex: Buffer.from(value).toString("hex") } : value;
}

function fieldsOf(meaning) {
  if (Array.isArray(meaning)) return meaning.map(fieldsOf);
  return meaning?.hex === undefined ? meaning : Buffer.from(meaning.hex, "hex");
}

const partsOf = ({ frames }) => frames.map((frame) => Buffer.from(frame, "hex"));
const verbsOf = ({ direction }) => (direction === "to_router" ? TO_ROUTER : TO_PEER);

/** What a reader says of a frame: the messages of a PUBLISH are looked at each for itself. */
function codeOf(vector) {
  const parts = partsOf(vector);
  try {
    if (vector.code === "bad_message") check("message", decode(parts[1])[1][0]);
    read(parts, verbsOf(vector));
  } catch (error) {
    if (error instanceof FrameError) return error.code;
    throw error;
  }
  return "";
}

const valid = load("valid");
for (const vector of valid) {
  const [verb, fields] = read(partsOf(vector), verbsOf(vector));
  assert.equal(verb, vector.verb, vector.name);
  assert.deepEqual(meaningOf(fields), vector.meaning, vector.name);
  const [, again] = read([Buffer.from(verb), write(verb, fieldsOf(vector.meaning))], verbsOf(vector));
  assert.deepEqual(meaningOf(again), vector.meaning, vector.name);
}
const invalid = load("invalid");
for (const vector of invalid) {
  // What is permitted, and whose name it is, only the router knows: these are read.
  let wanted = SHAPE_CODES.has(vector.code) ? vector.code : "";
  if (vector.name.includes("not UTF-8")) wanted = "bad_frame"; // looked at before it is known whose it is
  assert.equal(codeOf(vector), wanted, vector.name);
}
console.log(`${valid.length} valid, ${invalid.length} invalid`);
