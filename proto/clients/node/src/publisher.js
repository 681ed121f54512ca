import { NotConnected, Refused } from "./errors.js";
import { BATCH_MAX, FRAME_BYTES_MAX, FRAME_SPARE, check } from "./frames.js";
import { arrayHead, encode } from "./messagepack.js";

/** A frame of messages that has no answer yet. `left` is how many of them have none. */
class Batch {
  constructor(number, entries) {
    this.number = number;
    this.entries = entries;
    this.begin();
    this.payload = Buffer.concat([
      arrayHead(2), encode(number), arrayHead(entries.length), ...entries.map((one) => one.encoded),
    ]);
  }

  /** Nothing of it has an answer: what was refused before is looked at anew. */
  begin() {
    this.left = this.entries.length;
    for (const entry of this.entries) entry.refused = null;
  }
}

/**
 * What is published and not yet accepted. One frame is under way at a time; what comes meanwhile
 * travels together in the next one. A message refused for now holds back those of its subject, and
 * no others.
 */
export class Publisher {
  #send;
  #waiting = [];
  #later = new Set();
  #batch = null;
  #number = 0;
  #welcomed = false;
  #scheduled = false;
  #frameMax = FRAME_BYTES_MAX - FRAME_SPARE;
  #batchMax = BATCH_MAX;
  #lengthMax = BATCH_MAX;

  /** @param {(verb: string, payload: Buffer) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** Publish; resolves when it is on the router's disk. @param {import("./message.js").Message} message */
  publish(message, timeoutMs) {
    return new Promise((resolve, reject) => {
      const encoded = encode(check("message", message.fields()));
      const entry = { encoded, subject: message.subject, open: true, refused: null, resolve, reject };
      entry.timer = setTimeout(() => {
        const sentence = `no answer from the router in ${timeoutMs} ms; publish it again under its id`;
        this.#end(entry, entry.refused ?? new NotConnected(sentence));
      }, timeoutMs);
      this.#waiting.push(entry);
      this.#soon();
    });
  }

  /** A session begins: say again what has no answer. */
  welcome(batchMax, frameMax) {
    this.#welcomed = true;
    this.#batchMax = Math.max(1, Math.min(batchMax, BATCH_MAX));
    this.#frameMax = Math.max(1, frameMax - FRAME_SPARE);
    const batch = this.#batch;
    if (batch && batch.payload.length > this.#frameMax) {
      this.#divide(batch);
    } else if (batch) {
      batch.begin();
      this.#send("PUBLISH", batch.payload);
    }
    this.#flush();
  }

  lost() {
    this.#welcomed = false;
  }

  accepted(numbers) {
    const batch = this.#batch;
    if (batch && numbers.includes(batch.number)) this.#finish(batch);
  }

  refused(number, refusals) {
    const batch = this.#batch;
    if (batch?.number !== number) return;
    for (const [index, code, sentence, retryAfterMs] of refusals) {
      const entry = batch.entries[index];
      if (entry && !entry.refused) {
        entry.refused = new Refused(code, sentence, retryAfterMs);
        batch.left -= 1;
      }
    }
    if (batch.left === 0) this.#finish(batch); // else ACCEPTED follows
  }

  /** ERROR named this batch: nothing of it was done. One message that it is about is found by halves. */
  error(number, code, sentence) {
    const batch = this.#batch;
    if (batch?.number !== number) return false;
    if (batch.entries.length > 1) {
      this.#divide(batch);
    } else {
      batch.entries[0].refused = new Refused(code, sentence);
      this.#finish(batch);
    }
    this.#flush();
    return true;
  }

  /** Whatever has no answer will get none. @param {Error} reason */
  fail(reason) {
    const all = [...(this.#batch?.entries ?? []), ...this.#later, ...this.#waiting];
    this.#batch = null;
    this.#later.clear();
    this.#waiting = [];
    for (const entry of all) this.#end(entry, reason);
  }

  #soon() {
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        this.#flush();
      });
    }
  }

  #flush() {
    if (!this.#welcomed || this.#batch) return;
    const held = new Set([...this.#later].map((entry) => entry.subject));
    held.delete("");
    const [taken, left] = [[], []];
    let room = this.#frameMax - 16; // a head is at most 16 bytes
    for (const entry of this.#waiting) {
      if (!entry.open) continue;
      if (entry.encoded.length > this.#frameMax - 16) {
        const sentence = `no frame of this router holds it: ${this.#frameMax} bytes`;
        this.#end(entry, new Refused("body_too_large", sentence));
      } else if (
        held.has(entry.subject) || taken.length >= Math.min(this.#batchMax, this.#lengthMax) ||
        entry.encoded.length > room
      ) {
        left.push(entry);
        if (entry.subject) held.add(entry.subject); // none of its subject goes before it
      } else {
        taken.push(entry);
        room -= entry.encoded.length;
      }
    }
    this.#waiting = left;
    if (taken.length) {
      this.#batch = new Batch(++this.#number, taken);
      this.#send("PUBLISH", this.#batch.payload);
    }
  }

  #divide(batch) {
    this.#lengthMax = Math.max(1, Math.floor(batch.entries.length / 2));
    this.#batch = null;
    this.#waiting.unshift(...batch.entries);
  }

  #finish(batch) {
    this.#batch = null;
    this.#lengthMax = BATCH_MAX;
    for (const entry of batch.entries) {
      if (!entry.refused) {
        this.#end(entry, null);
      } else if (entry.refused.retryAfterMs === null) {
        this.#end(entry, entry.refused);
      } else if (entry.open) {
        this.#later.add(entry);
      }
    }
    if (this.#later.size) this.#repeatLater(batch.entries);
    this.#flush();
  }

  #repeatLater(entries) {
    const again = entries.filter((entry) => this.#later.has(entry));
    if (!again.length) return;
    const pauseMs = Math.max(...again.map((entry) => entry.refused.retryAfterMs));
    setTimeout(() => {
      for (const entry of again) this.#later.delete(entry);
      this.#waiting.unshift(...again.filter((entry) => entry.open));
      this.#flush();
    }, pauseMs);
  }

  #end(entry, error) {
    if (!entry.open) return;
    entry.open = false;
    clearTimeout(entry.timer);
    if (error) entry.reject(error);
    else entry.resolve();
  }
}
