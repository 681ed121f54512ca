import { Dealer } from "zeromq";

/** libzmq itself tries again so often while nobody listens, or somebody accepts and hangs up. */
const RECONNECT_MS = 500;
const BYE_MS = 500;

/**
 * One ZeroMQ connection to the router. zeromq.js sends one message at a time, so what is to be sent
 * waits here in its order.
 */
export class Connection {
  #socket;
  #outbox = [];
  #sending = null;
  #closed = false;

  /**
   * @param {string} address
   * @param {?import("./keys.js").KeyPair} key
   * @param {?string} serverKey
   * @param {{frames: (parts: Buffer[]) => void, unknownKey: () => void, gone: () => void}} on
   */
  constructor(address, key, serverKey, on) {
    this.#socket = new Dealer({
      linger: 0,
      sendHighWaterMark: 0,
      receiveHighWaterMark: 0,
      reconnectInterval: RECONNECT_MS,
      ipv6: address.includes("["),
      ...(key && serverKey
        ? { curvePublicKey: key.publicKey, curveSecretKey: key.secretKey, curveServerKey: serverKey }
        : {}),
    });
    this.#socket.events.on("handshake:error:auth", () => this.#closed || on.unknownKey());
    this.#socket.events.on("disconnect", () => this.#closed || on.gone());
    this.#socket.connect(address);
    this.#receive(on.frames);
  }

  async #receive(take) {
    try {
      for await (const parts of this.#socket) {
        if (this.#closed) return;
        take(parts);
      }
    } catch (error) {
      if (!this.#closed) throw error;
    }
  }

  /** @param {string} verb @param {Buffer} payload */
  send(verb, payload) {
    this.#outbox.push([verb, payload]);
    this.#sending ??= this.#sendAll();
  }

  async #sendAll() {
    try {
      while (this.#outbox.length && !this.#closed) await this.#socket.send(this.#outbox.shift());
    } catch {
      // The connection is gone: the session is over, and found so by silence.
    }
    this.#sending = null;
  }

  /** Close; with `bye` what was said has a moment to leave. */
  async close(bye = false) {
    if (bye) {
      this.#socket.linger = BYE_MS;
      await this.#sending;
    }
    if (!this.#closed) {
      this.#closed = true;
      this.#socket.close();
    }
  }
}
