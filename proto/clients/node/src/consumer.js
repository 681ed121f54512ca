import { ACK, REJECT, RETRY, words } from "./frames.js";
import { Message } from "./message.js";

/** One message to be settled: by `ack`, `retry` or `reject`, once. */
export class Delivery {
  #consumer;
  #bus;

  constructor(consumer, bus, [id, attempt, fields, generation]) {
    this.#consumer = consumer;
    this.#bus = bus;
    this.id = id;
    /** Counts from 1. */
    this.attempt = attempt;
    this.generation = generation;
    this.message = new Message(fields);
    this.settled = false;
  }

  /** The idempotency key: the same at every attempt, for ever, and never that of another message. */
  get key() {
    return this.generation ? `${this.#bus}-${this.generation}-${this.id}` : `${this.#bus}-${this.id}`;
  }

  /** Done. The note (the partner's answer, no personal data) is what operators read. */
  ack(note = null) {
    this.#settle(ACK, null, note);
  }

  /**
   * Not now: again after so many milliseconds, or by the destination's policy. With `wish` they are
   * what the partner asks for (an HTTP Retry-After), and the policy bounds them.
   * @param {string} reason @param {?number} afterMs @param {boolean} wish
   */
  retry(reason, afterMs = null, wish = false) {
    if (afterMs !== null && !(afterMs >= 0)) throw new RangeError(`a pause of ${afterMs} ms`);
    this.#settle(RETRY, afterMs === null ? null : Math.min(Math.round(afterMs), 2 ** 53 - 1), reason, wish);
  }

  /** Never: the message becomes a dead letter with this reason. @param {string} reason */
  reject(reason) {
    this.#settle(REJECT, null, reason);
  }

  #settle(outcome, afterMs, note, wish = false) {
    if (this.settled) throw new Error("this delivery is settled already");
    this.settled = true;
    const told = note === null ? null : words(note);
    this.#consumer.settle([this.id, outcome, afterMs, told, this.generation, wish]);
  }
}

/** Deliveries of one destination, as an async iterator. */
export class Consumer {
  #client;
  #ready = [];
  #held = new Set();
  #waiters = [];
  #ended = false;
  #error = null;

  constructor(client, destination, credit) {
    this.#client = client;
    this.destination = destination;
    this.credit = credit;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Delivery>>} */
  next() {
    if (this.#error) return Promise.reject(this.#error);
    if (this.#ready.length) return Promise.resolve({ done: false, value: this.#ready.shift() });
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /** Take no more; what nobody has looked at goes back to the router at once. */
  async return() {
    if (!this.#ended) {
      this.#ended = true;
      this.#client.forget(this);
      for (const delivery of this.#ready.splice(0)) delivery.retry("client.closed", 0);
      for (const { resolve } of this.#waiters.splice(0)) resolve({ done: true, value: undefined });
    }
    return { done: true, value: undefined };
  }

  /** @internal */
  deliver(bus, fields) {
    const key = `${fields[3]}-${fields[0]}`;
    // What is held from before a loss: its settlement, when it comes, counts for this one, too.
    if (this.#held.has(key)) return;
    this.#held.add(key);
    const delivery = new Delivery(this, bus, fields);
    if (this.#waiters.length) this.#waiters.shift().resolve({ done: false, value: delivery });
    else this.#ready.push(delivery);
  }

  /** @internal */
  settle(settlement) {
    this.#held.delete(`${settlement[4]}-${settlement[0]}`);
    this.#client.settle(settlement);
  }

  /** @internal What nobody has looked at comes again. */
  lost() {
    for (const { id, generation } of this.#ready.splice(0)) this.#held.delete(`${generation}-${id}`);
  }

  /** @internal */
  fail(error) {
    this.#error = error;
    for (const { reject } of this.#waiters.splice(0)) reject(error);
  }
}
