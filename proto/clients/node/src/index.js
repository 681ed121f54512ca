/** The client of smpbus for Node: see README.md. */
export { BusClient } from "./client.js";
export { Consumer, Delivery } from "./consumer.js";
export { BusError, FrameError, NotConnected, Refused, Reject, RequestFailed, Retry } from "./errors.js";
export { KeyPair, loadPublicKey } from "./keys.js";
export { Message, Priority, newId } from "./message.js";
