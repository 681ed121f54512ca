import { randomBytes } from "node:crypto";
import { check } from "./frames.js";

export const Priority = Object.freeze({ EMERGENCY: 0, URGENT: 1, ROUTINE: 2, BULK: 3 });
const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * An envelope (in the meaning of CloudEvents 1.0) and a body. Times are milliseconds since 1970 UTC.
 *
 * Messages of one subject stay in order; "" means no order. A number that is not exact as a Number
 * (beyond 2^53) is a BigInt.
 */
export class Message {
  /** @param {unknown[]} fields as they are on the wire. Throws FrameError (`bad_message`). */
  constructor(fields) {
    [
      this.id, this.type, this.source, this.subject, this.time, this.priority, this.notBefore,
      this.expires, this.replyTo, this.correlationId, this.traceparent, this.contentType, this.body,
    ] = check("message", fields);
  }

  /**
   * Make a message now. A body that is no Uint8Array is encoded as JSON.
   * @param {string} type
   * @param {string} source
   * @param {unknown} [body]
   * @param {{id?: string, subject?: string, time?: number, priority?: number, notBefore?: ?number,
   *   expires?: ?number, replyTo?: ?string, correlationId?: ?string, traceparent?: ?string,
   *   contentType?: string}} [envelope]
   * @returns {Message}
   */
  static create(type, source, body = new Uint8Array(0), envelope = {}) {
    const {
      id = newId(), subject = "", time = Date.now(), priority = Priority.ROUTINE, notBefore = null,
      expires = null, replyTo = null, correlationId = null, traceparent = null,
      contentType = "application/json", ...unknown
    } = envelope;
    const names = Object.keys(unknown);
    if (names.length) throw new TypeError(`no such field: ${names.join(", ")}`);
    const bytes = body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body));
    return new Message([
      id, type, source, subject, time, priority, notBefore, expires, replyTo, correlationId, traceparent,
      contentType, bytes,
    ]);
  }

  /** @returns {unknown[]} the fields as they are on the wire */
  fields() {
    return [
      this.id, this.type, this.source, this.subject, this.time, this.priority, this.notBefore,
      this.expires, this.replyTo, this.correlationId, this.traceparent, this.contentType, this.body,
    ];
  }

  /** The body decoded from JSON. Throws SyntaxError or TypeError when it is none. @returns {any} */
  json() {
    return decodeJson(this.body);
  }
}

/** @param {Uint8Array} body @returns {any} */
export function decodeJson(body) {
  return JSON.parse(utf8.decode(body));
}

/** A UUID version 7: it grows with time, which makes the router's look for repeats cheap. */
export function newId(nowMs = Date.now()) {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
