/**
 * The Node client at work, for tests/integration/scenes.py, which says what is to come out.
 *
 *   node talk.mjs ADDRESS KEYS_FOLDER SCENARIO
 *
 * Every step is a JSON line on stdout; a line on stdin lets it go on. tests/php/talk.php does the same.
 */
import { BusClient, KeyPair, Priority, Reject, Retry, loadPublicKey } from "../../proto/clients/node/src/index.js";

function tell(what, facts = {}) {
  process.stdout.write(`${JSON.stringify({ what, ...facts })}\n`);
}

/** Wait for a line on stdin; the client is at work meanwhile. */
async function waitForLeave() {
  await new Promise((resolve) => process.stdin.once("data", resolve));
  process.stdin.unref();
}

const codes = (errors) => errors.map((error) => error?.code ?? null);

const scenarios = {
  async talk(bus) {
    const messages = ["принят", "назначен", "завершён"].map((status, n) =>
      bus.message("test.status.v1", { status }, {
        subject: "112-4711", id: `vendor-${n}`, priority: Priority.URGENT, correlationId: "a b",
      }),
    );
    messages.push(bus.message("other.status.v1"));
    tell("published", { refused: codes(await bus.publishMany(messages)) });
    try {
      await bus.publish(messages.at(-1));
    } catch (refused) {
      tell("refused", { code: refused.code, later: refused.retryAfterMs });
    }
    const seen = [];
    let done;
    const all = new Promise((resolve) => (done = resolve));
    bus.handle("inbox", async (delivery) => {
      const { id, source } = delivery.message;
      tell("delivered", {
        id, source, attempt: delivery.attempt, key: delivery.key, body: delivery.message.json(),
      });
      if (id === "vendor-0" && delivery.attempt === 1) throw new Retry("later", 50);
      seen.push(id);
      if (seen.length === 4) queueMicrotask(done);
      if (id === "vendor-2") throw new Reject("of no use");
      return "HTTP 200";
    }, { credit: 10 });
    await all;
    const answer = await bus.request("python", bus.message("test.question.v1", { n: 20 }), { timeoutMs: 10_000 });
    tell("answered", { body: answer.json() });
    for (const destination of ["nobody", "python"]) {
      try {
        await bus.request(destination, bus.message("test.question.v1", { n: "не число" }));
      } catch (failed) {
        tell("failed", { code: failed.code });
      }
    }
    let asked = 0;
    const twice = new Promise((resolve) => {
      bus.serve("inbox", (question) => {
        if (++asked === 2) setImmediate(resolve);
        const { n } = question.json();
        if (n < 0) throw new RangeError("personal data of somebody");
        return { n: n + 1 };
      });
    });
    tell("serving");
    await twice;
    await bus.report({ set_aside: 7 });
    await bus.close();
    tell("bye");
  },

  async full(bus) {
    const messages = Array.from({ length: 6 }, (_, n) => bus.message("small.message.v1", { n }, { subject: "one" }));
    tell("publishing");
    tell("published", { refused: codes(await bus.publishMany(messages, { timeoutMs: 20_000 })) });
    const large = bus.message("small.message.v1", new Uint8Array(2000));
    tell("large", { refused: codes(await bus.publishMany([large, large])) });
    const frame = bus.message("small.message.v1", new Uint8Array(5_000_000));
    tell("frame", { refused: codes(await bus.publishMany([frame]))[0] });
  },

  async outage(bus) {
    for (let n = 0; n < 30; n++) {
      await bus.publish(bus.message("test.message.v1", { n }, { subject: "one" }), { timeoutMs: 30_000 });
      tell("published", { n });
    }
    const seen = [];
    for await (const delivery of bus.consume("inbox", { credit: 4 })) {
      seen.push(delivery.message.json().n);
      if (seen.length === 1) {
        tell("holding");
        await waitForLeave();
      }
      delivery.ack();
      if (seen.at(-1) === 29) break;
    }
    tell("consumed", { seen });
  },

  async slow(bus) {
    for await (const delivery of bus.consume("inbox")) {
      tell("holding", { attempt: delivery.attempt });
      await waitForLeave();
      delivery.ack();
      break;
    }
    await bus.close();
    tell("done");
  },

  async unwelcome(bus) {
    bus.on("error", ({ code, verb }) => tell("error", { code, verb }));
    for await (const delivery of bus.consume("secret")) {
      tell("delivered", { body: delivery.message.json() });
      delivery.ack();
      break;
    }
  },

  async stranger(bus) {
    try {
      await bus.connect();
    } catch (error) {
      tell("stranger", { code: error.code });
    }
  },
};

const [address, keys, scenario] = process.argv.slice(2);
const bus = new BusClient({
  address,
  name: "vendor",
  key: KeyPair.load(`${keys}${scenario === "stranger" ? "/../elsewhere" : ""}/vendor.key`),
  serverKey: loadPublicKey(`${keys}/router.pub`),
});
await scenarios[scenario](bus);
await bus.close();
