<?php
/**
 * A client of the bus in another language, written from proto/SPEC.md alone.
 *
 *   php client.php ADDRESS NAME KEYS_FOLDER
 *
 * Greets, grants credit on the destination "php", publishes three messages on one subject, settles
 * what it is delivered (the first one is asked for again, once), and leaves with BYE when it has
 * acknowledged four. Every step is a JSON line on stdout. Exit status 0, or 1 with a sentence.
 */
declare(strict_types=1);

const ACK = 0;
const RETRY = 1;
const PATIENCE_MS = 10000;

/** A string of the bin family: MessagePack tells it from text, PHP does not. */
final class Bin
{
    public function __construct(public string $bytes)
    {
    }
}

/** What this protocol needs of MessagePack. */
final class Pack
{
    private int $at = 0;

    private function __construct(private string $data)
    {
    }

    public static function encode(mixed $value): string
    {
        return match (true) {
            $value === null => "\xc0",
            is_int($value) => self::int($value),
            is_string($value) => self::head(strlen($value), 0xa0, 31, [0xd9, 0xda, 0xdb]) . $value,
            $value instanceof Bin =>
                self::head(strlen($value->bytes), null, -1, [0xc4, 0xc5, 0xc6]) . $value->bytes,
            is_array($value) =>
                self::head(count($value), 0x90, 15, [null, 0xdc, 0xdd])
                . implode('', array_map(self::encode(...), $value)),
        };
    }

    private static function int(int $value): string
    {
        return $value >= 0 && $value < 128 ? chr($value) : "\xd3" . pack('J', $value);
    }

    private static function head(int $length, ?int $short, int $shortMax, array $long): string
    {
        return match (true) {
            $length <= $shortMax => chr($short | $length),
            $length < 0x100 && $long[0] !== null => chr($long[0]) . chr($length),
            $length < 0x10000 => chr($long[1]) . pack('n', $length),
            default => chr($long[2]) . pack('N', $length),
        };
    }

    public static function decode(string $data): mixed
    {
        return (new self($data))->value();
    }

    private function take(int $length): string
    {
        $part = substr($this->data, $this->at, $length);
        $this->at += $length;
        return $part;
    }

    private function number(string $format, int $length): int
    {
        return unpack($format, $this->take($length))[1];
    }

    private function many(int $count): array
    {
        $items = [];
        while ($count-- > 0) {
            $items[] = $this->value();
        }
        return $items;
    }

    private function value(): mixed
    {
        $head = ord($this->take(1));
        return match (true) {
            $head < 0x80 => $head,
            $head >= 0xe0 => $head - 256,
            ($head & 0xe0) === 0xa0 => $this->take($head & 31),
            ($head & 0xf0) === 0x90 => $this->many($head & 15),
            $head === 0xc0 => null,
            $head === 0xc2, $head === 0xc3 => $head === 0xc3,
            $head === 0xc4, $head === 0xd9 => $this->take($this->number('C', 1)),
            $head === 0xc5, $head === 0xda => $this->take($this->number('n', 2)),
            $head === 0xc6, $head === 0xdb => $this->take($this->number('N', 4)),
            $head === 0xcc => $this->number('C', 1),
            $head === 0xcd => $this->number('n', 2),
            $head === 0xce => $this->number('N', 4),
            $head === 0xcf, $head === 0xd3 => $this->number('J', 8),
            $head === 0xdc => $this->many($this->number('n', 2)),
            $head === 0xdd => $this->many($this->number('N', 4)),
            default => fail(sprintf('MessagePack head %02x is not of this protocol', $head)),
        };
    }
}

function fail(string $sentence): never
{
    fwrite(STDERR, $sentence . "\n");
    exit(1);
}

function tell(string $what, mixed ...$facts): void
{
    echo json_encode(['what' => $what] + $facts, JSON_UNESCAPED_UNICODE), "\n";
    flush();
}

final class Bus
{
    private ZMQSocket $socket;
    private ZMQPoll $poll;

    public function __construct(string $address, private string $name, string $keys)
    {
        $this->socket = new ZMQSocket(new ZMQContext(), ZMQ::SOCKET_DEALER);
        $this->socket->setSockOpt(ZMQ::SOCKOPT_LINGER, 1000);
        $key = fn (string $file): string => trim(file_get_contents("$keys/$file"));
        $this->socket->setSockOpt(ZMQ::SOCKOPT_CURVE_SERVERKEY, $key('router.pub'));
        $this->socket->setSockOpt(ZMQ::SOCKOPT_CURVE_PUBLICKEY, $key("$name.pub"));
        $this->socket->setSockOpt(ZMQ::SOCKOPT_CURVE_SECRETKEY, $key("$name.key"));
        $this->socket->connect($address);
        $this->poll = new ZMQPoll();
        $this->poll->add($this->socket, ZMQ::POLL_IN);
    }

    public function say(string $verb, array $payload): void
    {
        $this->socket->sendMulti([$verb, Pack::encode($payload)]);
    }

    /** Wait for the next frame that is not about liveness: [verb, payload]. */
    public function hear(): array
    {
        while (true) {
            $readable = $writable = [];
            if ($this->poll->poll($readable, $writable, PATIENCE_MS) === 0) {
                fail('the router says nothing for ' . PATIENCE_MS . ' ms');
            }
            [$verb, $payload] = $this->socket->recvMulti();
            $decoded = Pack::decode($payload);
            if ($verb === 'PING') {
                $this->say('PONG', $decoded);
            } else {
                return [$verb, $decoded];
            }
        }
    }

    public function expect(string $wanted): array
    {
        [$verb, $payload] = $this->hear();
        if ($verb !== $wanted) {
            fail("expected $wanted, heard $verb: " . json_encode($payload, JSON_UNESCAPED_UNICODE));
        }
        return $payload;
    }
}

[, $address, $name, $keys] = $argv;
$bus = new Bus($address, $name, $keys);

$bus->say('HELLO', [[1], $name, 'php/1']);
[$version, $as, $journal] = $bus->expect('WELCOME');
tell('welcome', version: $version, as: $as);

$bus->say('HELLO', [[1]]); // broken on purpose: the name is missing
[$code, , $verb] = $bus->expect('ERROR');
tell('error', code: $code, verb: $verb);

$now = (int) (microtime(true) * 1000);
$messages = [];
foreach (['принят', 'назначен', 'завершён'] as $number => $status) {
    $body = new Bin(json_encode(['status' => $status], JSON_UNESCAPED_UNICODE));
    $messages[] = ["php-$number", 'php.status.v1', $name, '112-4711', $now, 1,
        null, null, null, null, null, 'application/json', $body];
}
$bus->say('PUBLISH', [1, $messages]);
tell('accepted', batches: $bus->expect('ACCEPTED')[0]);

$bus->say('CREDIT', ['php', 10]);
$acknowledged = $askedAgain = 0;
while ($acknowledged < 4) {
    [$destination, $deliveries] = $bus->expect('DELIVER');
    foreach ($deliveries as $one) {
        [$delivery, $attempt, $message] = $one;
        $generation = $one[3] ?? '';
        $again = $askedAgain === 0;
        tell('delivered', id: $message[0], source: $message[2], attempt: $attempt,
            key: $generation === '' ? "$journal-$delivery" : "$journal-$generation-$delivery",
            body: json_decode($message[12], true));
        $bus->say('SETTLE', [[
            [$delivery, $again ? RETRY : ACK, $again ? 50 : null, 'HTTP 200', $generation],
        ]]);
        $again ? $askedAgain++ : $acknowledged++;
    }
}
$bus->say('BYE', ['done']);
tell('bye', acknowledged: $acknowledged);
