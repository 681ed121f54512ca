/** The bus said no: `code` is a stable word for programs (SPEC.md, section 11), `sentence` is for people. */
export class BusError extends Error {
  /** @param {string} code @param {string} sentence */
  constructor(code, sentence) {
    super(`${code}: ${sentence}`);
    this.name = this.constructor.name;
    this.code = code;
    this.sentence = sentence;
  }
}

/** A message was not accepted; `retryAfterMs` says when the same may be, null: never. */
export class Refused extends BusError {
  /** @param {string} code @param {string} sentence @param {?number} retryAfterMs */
  constructor(code, sentence, retryAfterMs = null) {
    super(code, sentence);
    this.retryAfterMs = retryAfterMs;
  }
}

/** A question got no answer, or the answering side failed. */
export class RequestFailed extends BusError {}

/** The router could not be reached, or did not answer, in the time given. */
export class NotConnected extends BusError {
  /** @param {string} sentence */
  constructor(sentence) {
    super("not_connected", sentence);
  }
}

/** A frame that this side cannot read, or must not send. */
export class FrameError extends BusError {}

/** Thrown by a handler: deliver again, after so many milliseconds or by the destination's policy. */
export class Retry extends Error {
  /** @param {string} reason @param {?number} afterMs @param {boolean} wish see Delivery.retry */
  constructor(reason, afterMs = null, wish = false) {
    super(reason);
    this.afterMs = afterMs;
    this.wish = wish;
  }
}

/** Thrown by a handler: this can never be delivered; make it a dead letter. */
export class Reject extends Error {}
