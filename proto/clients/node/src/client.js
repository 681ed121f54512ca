import { EventEmitter } from "node:events";
import { Connection } from "./connection.js";
import { Consumer } from "./consumer.js";
import { BusError, FrameError, NotConnected, Reject, RequestFailed, Retry } from "./errors.js";
import { ACK, FRAME_SPARE, REJECT, check, read, words, write } from "./frames.js";
import { decode } from "./messagepack.js";
import { Message, decodeJson } from "./message.js";
import { Publisher } from "./publisher.js";

const SOFTWARE = "smpbus-node/1";
const TICK_MS = 250;
const PING_AFTER_MS = 500;
const LOST_AFTER_MS = 2000;
const PAUSE_MS = [50, 1000]; // before the next attempt: the first, doubled up to the last
const LIVED_MS = 5000; // a session that lived so long was a good one
const GRANT_AFTER_MS = 5000;
const SETTLED_MAX = 500; // in one frame, with notes of the greatest length well under any limit
const ACKED_MAX = 4096;
const FATAL = new Set(["bad_version", "name_mismatch", "unknown_name", "revoked", "too_many_sessions"]);

const now = () => performance.now();

/**
 * A session on the bus; one per process is enough.
 *
 * It finds a lost router, greets it again when it is back, and says again what had no answer, under
 * the same ids, so that nothing is doubled. Events: "error" (BusError: what the router did not take;
 * without a listener it goes to console.error), "connected", "lost".
 */
export class BusClient extends EventEmitter {
  #address; #name; #key; #serverKey; #timeoutMs;
  #connection = null;
  #ticker = null;
  #attempt = null;
  #closed = false;
  #fatal = null;
  #welcome = null;
  #bus = "";
  #frameMax = 0;
  #heardAt = 0;
  #tickedAt = 0;
  #welcomedAt = 0;
  #pauseMs = PAUSE_MS[0];
  #greeted = new Set(); // those who wait for WELCOME
  #publisher = new Publisher((verb, payload) => this.#connection?.send(verb, payload));
  #windows = new Map();
  #consumers = new Map();
  #grantAt = null;
  #told = new Set();
  #settled = []; // of this turn of the loop, or kept for the next session
  #flushing = false;
  #acked = []; // said last in this session, which may be over by now
  #servers = new Map();
  #questions = new Map();
  #question = 0;

  /**
   * @param {{address: string, name: string, key?: ?import("./keys.js").KeyPair, serverKey?: ?string,
   *   timeoutMs?: number}} options `key` and `serverKey` may be left out only for a router that runs
   *   without CURVE; `timeoutMs` is how long a call may take that is given no time of its own
   */
  constructor({ address, name, key = null, serverKey = null, timeoutMs = 10_000 }) {
    super();
    this.#address = address;
    this.#name = name;
    this.#key = key;
    this.#serverKey = serverKey;
    this.#timeoutMs = timeoutMs;
  }

  /** Connect and wait for WELCOME. Rejects with NotConnected, or BusError when it will never come. */
  async connect(timeoutMs = this.#timeoutMs) {
    this.#begin();
    if (this.#welcome) return;
    await new Promise((resolve, reject) => {
      const waiting = { resolve, reject };
      this.#greeted.add(waiting);
      waiting.timer = setTimeout(() => {
        this.#greeted.delete(waiting);
        const sentence = `no answer from the router at ${this.#address} in ${timeoutMs} ms; is it there, ` +
          "is its own key the one given here?";
        reject(new NotConnected(sentence));
      }, timeoutMs);
    });
  }

  /** Say BYE and close. What is not settled goes to others at once. */
  async close() {
    if (this.#closed) return;
    for (const consumer of [...this.#consumers.values()]) await consumer.return();
    this.#flushSettled();
    if (this.#welcome) this.#send("BYE", ["closed"]);
    this.#end(new NotConnected("this client is closed"));
    await this.#connection?.close(this.#welcome !== null);
    this.#connection = this.#welcome = null;
  }

  /** Make a message from this peer; see Message.create. @returns {Message} */
  message(type, body, envelope) {
    return Message.create(type, this.#name, body, envelope);
  }

  // -- publishing -------------------------------------------------------------------------------

  /**
   * Publish one; resolves when it is on the router's disk. What is published meanwhile travels
   * together; what is refused for now is said again when the router says, as long as the time lasts.
   * Rejects with Refused, or with NotConnected after the time: what became of the message is then not
   * known, and a repeat under the same id does no harm.
   * @param {Message} message
   */
  async publish(message, { timeoutMs = this.#timeoutMs } = {}) {
    this.#begin();
    await this.#publisher.publish(message, timeoutMs);
  }

  /**
   * Publish several; resolves to an array with null or the error of each.
   * @param {Message[]} messages @returns {Promise<(?Error)[]>}
   */
  async publishMany(messages, options) {
    const results = await Promise.allSettled(messages.map((one) => this.publish(one, options)));
    return results.map((one) => (one.status === "rejected" ? one.reason : null));
  }

  // -- consuming --------------------------------------------------------------------------------

  /**
   * Deliveries of a destination, at most `credit` of them unsettled: `for await (const delivery of
   * bus.consume("sitcentre"))`. A destination that the router does not give (no such queue, no right)
   * is asked for again every few seconds; "error" tells of it.
   * @param {string} destination @returns {Consumer}
   */
  consume(destination, { credit = 16 } = {}) {
    if (this.#consumers.has(destination)) throw new Error(`${destination} is consumed by this client already`);
    this.#begin();
    this.#grant(destination, credit);
    const consumer = new Consumer(this, destination, credit);
    this.#consumers.set(destination, consumer);
    return consumer;
  }

  /**
   * Run `handler(delivery)` for each delivery, up to `credit` at a time, until the client closes. What
   * it returns is the note of the ack; Retry and Reject settle so; any other error is a retry under
   * its name only, since its text may hold personal data.
   * @param {string} destination
   * @param {(delivery: import("./consumer.js").Delivery) => Promise<?string>} handler
   */
  async handle(destination, handler, options) {
    for await (const delivery of this.consume(destination, options)) {
      Promise.resolve().then(() => handler(delivery)).then(
        (note) => delivery.settled || delivery.ack(note ?? null),
        (error) => {
          if (delivery.settled) return;
          if (error instanceof Reject) delivery.reject(error.message);
          else if (error instanceof Retry) delivery.retry(error.message, error.afterMs, error.wish);
          else delivery.retry(error?.constructor?.name ?? "Error");
        },
      );
    }
  }

  /** @internal */
  settle(settlement) {
    this.#settled.push(settlement);
    if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flushSettled());
    }
  }

  /** @internal */
  forget(consumer) {
    const { destination } = consumer;
    this.#consumers.delete(destination);
    this.#grant(destination, 0);
    if (!this.#servers.has(destination)) this.#windows.delete(destination);
  }

  #flushSettled() {
    this.#flushing = false;
    if (!this.#welcome) return; // they wait for the next session
    while (this.#settled.length) {
      const part = this.#settled.splice(0, SETTLED_MAX);
      this.#send("SETTLE", [part]);
      this.#acked.push(...part.filter(([, outcome]) => outcome === ACK));
    }
    if (this.#acked.length > 2 * ACKED_MAX) this.#acked = this.#acked.slice(-ACKED_MAX);
  }

  #grant(destination, window) {
    this.#windows.set(destination, window);
    // Also before the greeting: it checks the name.
    const payload = write("CREDIT", [destination, window, this.#servers.has(destination)]);
    if (this.#welcome) this.#connection.send("CREDIT", payload);
  }

  #grantAll() {
    for (const [destination, window] of this.#windows) this.#grant(destination, window);
  }

  // -- request and reply --------------------------------------------------------------------------

  /**
   * Ask whoever serves a destination; it is asked once and never kept. Rejects with RequestFailed and
   * the code of the bus, as "no_consumer", "timeout" or "failed".
   * @param {string} destination @param {Message} question
   * @returns {Promise<{contentType: string, body: Buffer, json: () => any}>}
   */
  async request(destination, question, { timeoutMs = 5000 } = {}) {
    await this.connect(timeoutMs);
    const number = ++this.#question;
    const payload = write("REQUEST", [number, destination, Math.round(timeoutMs), question.fields()]);
    if (payload.length > this.#frameMax) {
      throw new RequestFailed("body_too_large", `a frame of this router holds ${this.#frameMax} bytes`);
    }
    const [, code, sentence, contentType, body] = await new Promise((resolve, reject) => {
      // The router answers at the deadline; the margin is for one that is gone.
      const late = () => reject(new RequestFailed("timeout", `no answer in ${timeoutMs} ms`));
      this.#questions.set(number, { resolve, reject, timer: setTimeout(late, timeoutMs + 1000) });
      this.#connection.send("REQUEST", payload);
    }).finally(() => {
      clearTimeout(this.#questions.get(number)?.timer);
      this.#questions.delete(number);
    });
    if (code) throw new RequestFailed(code, sentence);
    return { contentType, body, json: () => decodeJson(body) };
  }

  /**
   * Answer questions to a destination with what `server(message)` returns: bytes as they are, all
   * else as JSON. A BusError that it throws is the answer; of any other error the asker learns the
   * name, since its text may hold personal data.
   * @param {string} destination @param {(question: Message) => unknown} server
   */
  serve(destination, server) {
    this.#servers.set(destination, server);
    this.#begin();
    this.#grant(destination, this.#windows.get(destination) ?? 0);
  }

  async #answer(server, [number, , , question]) {
    let reply;
    try {
      const answer = await server(new Message(question));
      const body = answer instanceof Uint8Array ? answer : Buffer.from(JSON.stringify(answer ?? null));
      reply = [number, "", "", "application/json", body];
    } catch (error) {
      const known = error instanceof BusError;
      reply = known
        ? [number, words(error.code, 64), words(error.sentence)]
        : [number, "failed", words(error?.constructor?.name ?? "Error")];
    }
    if (!this.#welcome) return; // whoever asked was told that this session is gone
    let payload = write("REPLY", reply);
    if (payload.length > this.#frameMax) {
      payload = write("REPLY", [number, "body_too_large", "longer than a frame of this router"]);
    }
    this.#connection.send("REPLY", payload);
  }

  /** Tell operators how this process is: see "REPORT" in SPEC.md. @param {object} report */
  async report(report) {
    await this.connect();
    this.#send("REPORT", [Buffer.from(JSON.stringify(report))]);
  }

  // -- the session --------------------------------------------------------------------------------

  #begin() {
    if (this.#fatal) throw this.#fatal;
    if (this.#closed) throw new NotConnected("this client is closed");
    if (this.#ticker === null) {
      this.#tickedAt = now();
      this.#ticker = setInterval(() => this.#tick(), TICK_MS);
      this.#open();
    }
  }

  #open() {
    this.#attempt = null;
    this.#heardAt = now();
    this.#connection = new Connection(this.#address, this.#key, this.#serverKey, {
      frames: (parts) => this.#hear(parts),
      unknownKey: () =>
        this.#die(new BusError("unknown_name", "the router does not know this key, or it was revoked")),
      gone: () => this.#lose(),
    });
    this.#send("HELLO", [[1], this.#name, SOFTWARE]);
  }

  #send(verb, fields) {
    this.#connection.send(verb, write(verb, fields));
  }

  /** The session is over: what nobody has looked at comes again, and questions have no answer. */
  #lose(bye = false) {
    if (this.#connection === null) return;
    const welcomed = this.#welcome !== null;
    if (welcomed && now() - this.#welcomedAt >= LIVED_MS) this.#pauseMs = PAUSE_MS[0];
    this.#connection.close(bye);
    this.#connection = this.#welcome = null;
    this.#publisher.lost();
    for (const consumer of this.#consumers.values()) consumer.lost();
    this.#failQuestions(new RequestFailed("no_consumer", "the router went away"));
    // Spread, so that many clients of one router do not come back in the same moment.
    this.#attempt = setTimeout(() => this.#open(), this.#pauseMs * (0.5 + Math.random() / 2));
    this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS[1]);
    if (welcomed) this.emit("lost");
  }

  #failQuestions(error) {
    for (const { reject } of this.#questions.values()) reject(error);
  }

  /** No session any more. @param {Error} reason */
  #end(reason) {
    this.#closed = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#attempt);
    for (const { reject, timer } of this.#greeted) {
      clearTimeout(timer);
      reject(reason);
    }
    this.#greeted.clear();
    this.#publisher.fail(reason);
    this.#failQuestions(new RequestFailed(reason.code, reason.sentence));
  }

  #die(reason) {
    this.#fatal = reason;
    this.#end(reason);
    for (const consumer of this.#consumers.values()) consumer.fail(reason);
    this.#connection.close();
    this.#connection = this.#welcome = null;
  }

  #tick() {
    const lateMs = now() - this.#tickedAt;
    this.#tickedAt = now();
    if (this.#connection === null) return;
    // We stood still: what was said meanwhile is not read yet.
    if (lateMs >= PING_AFTER_MS) this.#heardAt = Math.max(this.#heardAt, now() - PING_AFTER_MS);
    const silentMs = now() - this.#heardAt;
    if (silentMs >= LOST_AFTER_MS) return this.#lose();
    if (!this.#welcome) return;
    if (silentMs >= PING_AFTER_MS) this.#send("PING", [0]);
    if (this.#grantAt !== null && now() >= this.#grantAt) {
      this.#grantAt = null;
      this.#grantAll();
    }
  }

  #hear(parts) {
    this.#heardAt = now();
    let verb, fields;
    try {
      [verb, fields] = read(parts);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      if (String(parts[0]) === "DELIVER" && parts.length === 2) this.#onUnreadable(parts[1]);
      this.#tell(error.code, error.sentence, "what the router said");
      return;
    }
    switch (verb) {
      case "WELCOME": return this.#onWelcome(fields);
      case "ACCEPTED": return this.#publisher.accepted(fields[0]);
      case "REFUSED": return this.#publisher.refused(fields[0], fields[1]);
      case "DELIVER": return fields[1].forEach((one) => this.#onDelivery(fields[0], one));
      case "REQUEST": {
        const server = this.#servers.get(fields[1]);
        if (server) return void this.#answer(server, fields);
        // Whoever asks need not wait for nothing.
        return this.#send("REPLY", [fields[0], "no_consumer", `${this.#name} does not answer`]);
      }
      case "REPLY": return this.#questions.get(fields[0])?.resolve(fields);
      case "PING": return this.#send("PONG", fields);
      case "BYE": return this.#lose();
      case "ERROR": return this.#onError(...fields);
    }
  }

  #onWelcome(welcome) {
    const [, , bus, , , batchMax, , frameMax] = welcome;
    this.#welcome = welcome;
    this.#bus = bus;
    this.#frameMax = Math.max(1, frameMax - FRAME_SPARE);
    this.#welcomedAt = now();
    this.#told.clear();
    this.#acked = [];
    this.#flushSettled(); // before CREDIT, so that what these settle is not delivered again
    this.#grantAll();
    this.#publisher.welcome(batchMax, frameMax);
    for (const { resolve, timer } of this.#greeted) {
      clearTimeout(timer);
      resolve();
    }
    this.#greeted.clear();
    this.emit("connected");
  }

  #onDelivery(destination, fields) {
    const consumer = this.#consumers.get(destination);
    if (consumer) return consumer.deliver(this.#bus, fields);
    // Sent before the router heard that nobody takes it here any more.
    this.settle([fields[0], 1, 0, "client.closed", fields[3], false]);
  }

  /** Reject what cannot be read of a DELIVER: unsettled it would stay with this session. */
  #onUnreadable(payload) {
    try {
      const [destination, deliveries] = decode(payload);
      for (const fields of deliveries) {
        try {
          this.#onDelivery(destination, check("delivery", fields));
        } catch {
          const generation = typeof fields[3] === "string" ? fields[3] : "";
          this.settle([fields[0], REJECT, null, "client.unreadable", generation, false]);
        }
      }
    } catch {
      // Not even that much can be read; it is told.
    }
  }

  #onError(code, sentence, verb, number) {
    if (FATAL.has(code)) return this.#die(new BusError(code, sentence));
    if (code === "hello_required") {
      if (this.#welcome) { // else the greeting is under way
        // The session was over, who knows since when: a repeat does no harm.
        this.#settled.unshift(...this.#acked.splice(0));
        this.#lose();
      }
      return;
    }
    if (verb === "PUBLISH" && number !== null && this.#publisher.error(number, code, sentence)) return;
    if (verb === "REQUEST" && this.#questions.has(number)) {
      this.#questions.get(number).reject(new RequestFailed(code, sentence));
      return;
    }
    if (verb === "CREDIT") this.#grantAt = now() + GRANT_AFTER_MS;
    this.#tell(code, sentence, verb);
    if (verb === "SETTLE" && code === "bad_frame") { // what it held stays with this session
      this.#send("BYE", ["a settlement was not taken"]);
      this.#lose(true);
    }
  }

  /** Tell of an error, once in a session. */
  #tell(code, sentence, verb) {
    if (this.#told.has(`${verb} ${code}`)) return;
    this.#told.add(`${verb} ${code}`);
    const error = new BusError(code, sentence);
    error.verb = verb;
    if (this.listenerCount("error")) this.emit("error", error);
    else console.error(`smpbus: the router did not take ${verb}: ${error.message}`);
  }
}
