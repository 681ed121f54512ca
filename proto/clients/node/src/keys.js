import { readFileSync } from "node:fs";

const KEY = /^[0-9a-zA-Z.\-:+=^!/*?&<>()[\]{}@%$#]{40}$/;

/** A CURVE key pair; the secret is not shown by console.log. */
export class KeyPair {
  #secret;

  /** @param {string} publicKey @param {string} secretKey of 40 characters each */
  constructor(publicKey, secretKey) {
    this.publicKey = publicKey;
    this.#secret = secretKey;
  }

  get secretKey() {
    return this.#secret;
  }

  /** Read NAME.key and the NAME.pub beside it, as `smpbus keys new NAME` writes them. */
  static load(keyFile) {
    return new KeyPair(loadPublicKey(`${keyFile.replace(/\.key$/, "")}.pub`), loadPublicKey(keyFile));
  }
}

/** Read one key, as that of the router. Throws Error naming the file. @returns {string} */
export function loadPublicKey(file) {
  const line = readFileSync(file, "latin1").trim();
  if (!KEY.test(line)) throw new Error(`${file}: no CURVE key (one line of 40 characters)`);
  return line;
}
