/**
 * Prints what comes to a queue and answers questions to it, until SIGTERM or Ctrl-C.
 *
 *   node consumer.js tcp://bus.example:7100 sitcentre /etc/smpbus/keys
 */
import { BusClient, KeyPair, loadPublicKey } from "../src/index.js";

const [address, name, keys] = process.argv.slice(2);
if (!keys) {
  console.error("usage: node consumer.js ADDRESS NAME KEYS_FOLDER");
  process.exit(64);
}
try {
  const bus = new BusClient({
    address, name, key: KeyPair.load(`${keys}/${name}.key`), serverKey: loadPublicKey(`${keys}/router.pub`),
  });
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.once(signal, () => bus.close()); // BYE: what is not settled goes to others at once
  }
  let taken = 0;
  bus.serve(name, () => ({ taken }));
  for await (const delivery of bus.consume(name)) {
    console.log(delivery.key, delivery.message.subject, Buffer.from(delivery.message.body).toString());
    delivery.ack("printed");
    taken += 1;
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
