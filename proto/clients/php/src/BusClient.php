<?php
declare(strict_types=1);

namespace Smpbus;

/**
 * A session on the bus whose calls block, for scripts and workers.
 *
 *     $bus = new BusClient('tcp://bus.example:7100', 'sitcentre',
 *         KeyPair::load("$keys/sitcentre.key"), KeyPair::loadPublic("$keys/router.pub"));
 *     $bus->publish($bus->message('sitcentre.note.v1', ['text' => 'ready']));
 *
 * It finds a lost router, greets it again when it is back, and says again what had no answer, under
 * the same ids, so that nothing is doubled. It speaks only inside its calls: whoever works for longer
 * than a few seconds on one delivery calls `keepAlive` meanwhile, or the router gives the delivery to
 * another and the idempotency key is what keeps it from having a second effect.
 */
final class BusClient
{
    private const SOFTWARE = 'smpbus-php/1';
    private const PING_AFTER_S = 0.5;
    private const LOST_AFTER_S = 2.0;
    private const PAUSE_S = [0.05, 1.0]; // before the next attempt: the first, doubled up to the last
    private const LIVED_S = 5.0; // a session that lived so long was a good one
    private const GRANT_AFTER_S = 5.0;
    private const ACKED_MAX = 4096;
    private const FATAL = [
        'bad_version', 'name_mismatch', 'unknown_name', 'revoked', 'too_many_sessions',
    ];

    /** @var callable(string $code, string $sentence, string $verb): void what the router did not take */
    public $onError;

    private string $address;
    private string $name;
    private ?KeyPair $key;
    private ?string $serverKey;
    private float $timeoutS;

    private ?Connection $connection = null;
    private bool $closed = false;
    private ?BusError $fatal = null;
    private float $connectAt = 0.0;
    private float $pauseS = self::PAUSE_S[0];
    private float $welcomedAt = 0.0;
    private float $heardAt = 0.0;
    private int $number = 0; // the last one given, to a batch or a question

    /** What WELCOME said: empty while there is no session. */
    private array $welcome = [];
    private string $bus = '';
    private int $frameMax = Frames::FRAME_BYTES_MAX - Frames::FRAME_SPARE;
    private int $batchMax = Frames::BATCH_MAX;

    private ?Batch $batch = null;
    /** @var array<string, int> by destination */
    private array $windows = [];
    private ?float $grantAt = null;
    private array $told = []; // errors that were told already
    /** @var array<string, Delivery[]> by destination: nobody has looked at these yet */
    private array $ready = [];
    /** @var array<string, true> deliveries that are not settled yet, by key */
    private array $held = [];
    private array $settledAway = []; // settlements that wait for a session
    private array $acked = []; // those said last in this session, which may be over by now
    /** @var array<string, callable> by destination */
    private array $servers = [];
    private array $questions = [];
    private int $asking = 0;
    private ?array $reply = null;

    /**
     * Nothing is said yet: the first call connects.
     *
     * @param ?KeyPair $key may be null, as $serverKey, only for a router that runs without CURVE
     * @param float $timeoutS how long a call may take that is given no time of its own
     */
    public function __construct(
        string $address,
        string $name,
        ?KeyPair $key = null,
        ?string $serverKey = null,
        float $timeoutS = 10.0
    ) {
        $this->address = $address;
        $this->name = $name;
        $this->key = $key;
        $this->serverKey = $serverKey;
        $this->timeoutS = $timeoutS;
        $this->onError = static function (string $code, string $sentence, string $verb): void {
            error_log("smpbus: the router did not take $verb: $code ($sentence)");
        };
    }

    public function __destruct()
    {
        $this->close();
    }

    /** Wait for the router's WELCOME. Throws NotConnected, or BusError when it will never come. */
    public function connect(?float $timeoutS = null): void
    {
        $this->waitFor(fn (): bool => $this->welcome !== [], $timeoutS ?? $this->timeoutS);
    }

    /** Say BYE and close. What is not settled goes to others at once. */
    public function close(): void
    {
        if ($this->connection !== null && $this->welcome !== []) {
            $this->send('BYE', ['closed']);
            $this->connection->linger();
        }
        $this->connection = null;
        $this->welcome = [];
        $this->closed = true;
    }

    /**
     * Make a message from this peer; see Message::create.
     *
     * @param mixed $body
     */
    public function message(string $type, $body = '', array $envelope = []): Message
    {
        return Message::create($type, $this->name, $body, $envelope);
    }

    // -- publishing -------------------------------------------------------------------------------

    /** Publish one; returns when it is on the router's disk. Throws Refused, NotConnected, BusError. */
    public function publish(Message $message, ?float $timeoutS = null): void
    {
        if ($refused = $this->publishMany([$message], $timeoutS)[0]) {
            throw $refused;
        }
    }

    /**
     * Publish several in as few frames as they fit in; returns for each null or why it was refused.
     *
     * What is refused for now is published again when the router says, as long as the time lasts,
     * and nothing behind it goes before it. Throws NotConnected after the time: what became of the
     * messages is then not known, and a repeat under the same ids does no harm.
     *
     * @param Message[] $messages
     * @return array<int, ?Refused>
     */
    public function publishMany(array $messages, ?float $timeoutS = null): array
    {
        $deadline = self::now() + ($timeoutS ?? $this->timeoutS);
        $encoded = [];
        foreach (array_values($messages) as $message) {
            $encoded[] = MessagePack::encode(Frames::check('message', $message->fields()));
        }
        $results = array_fill(0, count($encoded), null);
        $left = array_keys($encoded);
        $lengthMax = Frames::BATCH_MAX;
        $this->connect($deadline - self::now()); // it says how long a frame may be
        while ($left !== []) {
            $part = $this->thatFit($left, $encoded, $lengthMax);
            if ($part === []) {
                $results[array_shift($left)] = new Refused(
                    'body_too_large',
                    "no frame of this router holds it: $this->frameMax bytes"
                );
                continue;
            }
            $batch = $this->publishBatch(array_map(fn (int $at) => $encoded[$at], $part), $deadline);
            if ($batch->untaken && ($batch->count > 1 || $batch->refused === [])) {
                $lengthMax = max(1, intdiv($batch->count, 2));
                continue;
            }
            $left = array_slice($left, count($part));
            $again = [];
            foreach ($batch->refused as $index => $refused) {
                $results[$part[$index]] = $refused;
                if ($refused->retryAfterMs() !== null) {
                    $again[] = $part[$index];
                }
            }
            if ($again !== [] && !$this->waitToRepeat($again, $results, $deadline)) {
                // Theirs is the same reason: they would overtake what they follow.
                return array_replace($results, array_fill_keys($left, $results[$again[0]]));
            }
            foreach ($again as $at) {
                $results[$at] = null;
            }
            sort($again);
            $left = array_merge($again, $left);
        }
        return $results;
    }

    /** The first of those that are left, as many as one frame of this router holds. */
    private function thatFit(array $left, array $encoded, int $lengthMax): array
    {
        $room = $this->frameMax - 16; // a head is at most 16 bytes
        $part = [];
        foreach (array_slice($left, 0, min($lengthMax, $this->batchMax)) as $at) {
            $room -= strlen($encoded[$at]);
            if ($room < 0) {
                break;
            }
            $part[] = $at;
        }
        return $part;
    }

    private function publishBatch(array $encoded, float $deadline): Batch
    {
        $batch = $this->batch = new Batch(++$this->number, $encoded);
        try {
            if ($this->welcome !== []) {
                $this->sendBatch();
            }
            $this->waitFor(fn (): bool => $batch->done, $deadline - self::now());
        } finally {
            $this->batch = null;
        }
        return $batch;
    }

    private function sendBatch(): void
    {
        $this->batch->refused = [];
        if (strlen($this->batch->payload) > $this->frameMax) { // of another router than before
            $this->batch->done = $this->batch->untaken = true;
        } else {
            $this->connection->send('PUBLISH', $this->batch->payload);
        }
    }

    /** Wait as long as the router asks for; false when there is not so much time. */
    private function waitToRepeat(array $again, array $results, float $deadline): bool
    {
        $pauses = array_map(fn (int $at) => $results[$at]->retryAfterMs(), $again);
        $until = self::now() + max($pauses) / 1000;
        if ($until >= $deadline) {
            return false;
        }
        $this->pump(fn (): bool => false, $until);
        return true;
    }

    // -- consuming --------------------------------------------------------------------------------

    /**
     * Yield deliveries of a destination, at most `$credit` of them unsettled; settle each.
     *
     * Ends when nothing has come for `$timeoutS` seconds; null waits for ever. A destination that the
     * router does not give (no such queue, no right) is asked for again every few seconds; `onError`
     * hears of it.
     *
     * @return \Generator<Delivery>
     */
    public function consume(string $destination, int $credit = 16, ?float $timeoutS = null): \Generator
    {
        if (isset($this->ready[$destination])) {
            throw new \LogicException("$destination is consumed by this client already");
        }
        $this->grant($destination, $credit);
        $this->ready[$destination] = [];
        try {
            while (true) {
                $some = fn (): bool => $this->ready[$destination] !== [] || $this->questions !== [];
                $until = $timeoutS === null ? null : self::now() + $timeoutS;
                do {
                    $this->answerQuestions();
                    if ($this->ready[$destination] === [] && !$this->pump($some, $until)) {
                        return;
                    }
                } while ($this->ready[$destination] === []);
                yield array_shift($this->ready[$destination]);
            }
        } finally {
            $this->withdraw($destination);
        }
    }

    private function grant(string $destination, int $window): void
    {
        $this->windows[$destination] = $window;
        $fields = [$destination, $window, isset($this->servers[$destination])];
        $payload = Frames::write('CREDIT', $fields); // also before the greeting: it checks the name
        if ($this->welcome !== []) {
            $this->connection->send('CREDIT', $payload);
        }
    }

    /** Take no more; what nobody has looked at goes back to the router at once. */
    private function withdraw(string $destination): void
    {
        $unread = $this->ready[$destination];
        unset($this->ready[$destination]);
        if ($this->closed || $this->fatal !== null) {
            return;
        }
        $this->grant($destination, 0);
        if (!isset($this->servers[$destination])) {
            unset($this->windows[$destination]);
        }
        foreach ($unread as $delivery) {
            $delivery->retry('client.closed', 0);
        }
    }

    /** Settle a delivery by its fields on the wire; Delivery does it. */
    public function settle(array $settlement): void
    {
        [$id, $outcome, , , $generation] = $settlement;
        unset($this->held["$generation-$id"]);
        if ($this->welcome === []) {
            $this->settledAway[] = $settlement;
            return;
        }
        $this->send('SETTLE', [[$settlement]]);
        if ($outcome === Frames::ACK) {
            $this->acked[] = $settlement;
            if (count($this->acked) > 2 * self::ACKED_MAX) {
                $this->acked = array_slice($this->acked, -self::ACKED_MAX);
            }
        }
    }

    /** Hear what the router says and answer its PINGs: to be called in long work, every second or so. */
    public function keepAlive(): void
    {
        $this->pump(fn (): bool => false, self::now());
    }

    // -- request and reply --------------------------------------------------------------------------

    /**
     * Ask whoever serves a destination; it is asked once and never kept.
     *
     * Throws RequestFailed with the code of the bus, as "no_consumer", "timeout" or "failed".
     */
    public function request(string $destination, Message $question, float $timeoutS = 5.0): Reply
    {
        $this->connect($timeoutS);
        $number = $this->asking = ++$this->number;
        $this->reply = null;
        $fields = [$number, $destination, max(1, (int) ($timeoutS * 1000)), $question->fields()];
        try {
            $payload = Frames::write('REQUEST', $fields);
            if (strlen($payload) > $this->frameMax) {
                throw new RequestFailed('body_too_large', "a frame holds $this->frameMax bytes");
            }
            $this->connection->send('REQUEST', $payload);
            // The router answers at the deadline; the margin is for one that is gone.
            if (!$this->pump(fn (): bool => $this->reply !== null, self::now() + $timeoutS + 1)) {
                throw new RequestFailed('timeout', "no answer in $timeoutS s");
            }
        } finally {
            $this->asking = 0;
        }
        [, $code, $sentence, $contentType, $body] = $this->reply;
        if ($code !== '') {
            throw new RequestFailed($code, $sentence);
        }
        return new Reply($contentType, $body->value);
    }

    /**
     * Answer questions to a destination with what `$server(Message)` returns: a string as it is, all
     * else as JSON. They are answered inside `consume` and `run`. A BusError that it throws is the
     * answer; of any other exception the asker learns the class, since its text may hold personal data.
     */
    public function serve(string $destination, callable $server): void
    {
        $this->servers[$destination] = $server;
        $this->grant($destination, $this->windows[$destination] ?? 0);
    }

    /** Answer questions for so many seconds; null: for ever. */
    public function run(?float $timeoutS = null): void
    {
        $until = $timeoutS === null ? null : self::now() + $timeoutS;
        do {
            $this->answerQuestions();
        } while ($this->pump(fn (): bool => $this->questions !== [], $until));
    }

    private function answerQuestions(): void
    {
        while ($this->questions !== []) {
            [$number, $destination, , $question] = array_shift($this->questions);
            try {
                $answer = ($this->servers[$destination])(new Message($question));
                $body = is_string($answer) ? $answer : Message::encodeJson($answer);
                $reply = [$number, '', '', 'application/json', new Bytes($body)];
            } catch (BusError $error) {
                $code = Frames::words($error->busCode(), 64);
                $reply = [$number, $code, Frames::words($error->sentence())];
            } catch (\Throwable $error) {
                $reply = [$number, 'failed', Frames::words(get_class($error))];
            }
            $payload = Frames::write('REPLY', $reply);
            if (strlen($payload) > $this->frameMax) {
                $sentence = 'the answer is longer than a frame of this router';
                $payload = Frames::write('REPLY', [$number, 'body_too_large', $sentence]);
            }
            if ($this->welcome !== []) { // else whoever asked was told that this session is gone
                $this->connection->send('REPLY', $payload);
            }
        }
    }

    /** Tell operators how this process is: see "REPORT" in the specification. */
    public function report(array $report): void
    {
        $this->connect();
        $this->send('REPORT', [new Bytes(Message::encodeJson((object) $report))]);
    }

    // -- the session --------------------------------------------------------------------------------

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    private function waitFor(callable $done, float $timeoutS): void
    {
        if (!$this->pump($done, self::now() + $timeoutS)) {
            throw new NotConnected("no answer from the router at $this->address in the time given;"
                . ' is it there, does it know this key, is its own key the one given here?');
        }
    }

    /** Speak with the router until `$done()` or until a moment; return whether it is done. */
    private function pump(callable $done, ?float $until): bool
    {
        if ($this->closed) {
            throw new NotConnected('this client is closed');
        }
        do {
            if ($this->fatal !== null) {
                throw $this->fatal;
            }
            if ($done()) {
                return true;
            }
            $left = $until === null ? 0.1 : $until - self::now();
            $this->turn(max(0.0, min(0.1, $left)));
        } while ($until === null || $left > 0);
        return $done();
    }

    private function turn(float $waitS): void
    {
        if ($this->connection === null) {
            $pauseS = $this->connectAt - self::now();
            if ($pauseS > 0) {
                usleep((int) (min($pauseS, $waitS) * 1e6));
                return;
            }
            $this->open();
        }
        $parts = $this->connection->receive($waitS);
        $now = self::now();
        while ($parts !== null && $this->connection !== null) {
            $this->heardAt = $now;
            $this->hear($parts);
            $parts = $this->connection === null ? null : $this->connection->receive(0);
        }
        if ($this->connection === null || $this->fatal !== null) {
            return;
        }
        $silentS = $now - $this->heardAt;
        if ($silentS >= self::LOST_AFTER_S) {
            $this->lose();
        } elseif ($this->welcome !== [] && $silentS >= self::PING_AFTER_S) {
            $this->send('PING', [0]);
        }
        if ($this->grantAt !== null && $now >= $this->grantAt && $this->welcome !== []) {
            $this->grantAt = null;
            $this->grantAll();
        }
    }

    private function open(): void
    {
        $this->connection = new Connection($this->address, $this->key, $this->serverKey);
        $this->heardAt = self::now();
        $this->send('HELLO', [[1], $this->name, self::SOFTWARE]);
    }

    /** The session is over: what nobody has looked at comes again, and a question has no answer. */
    private function lose(): void
    {
        if ($this->welcome !== [] && self::now() - $this->welcomedAt >= self::LIVED_S) {
            $this->pauseS = self::PAUSE_S[0];
        }
        $this->connection = null;
        $this->welcome = [];
        foreach ($this->ready as $destination => $unread) {
            foreach ($unread as $delivery) {
                unset($this->held["$delivery->generation-$delivery->id"]);
            }
            $this->ready[$destination] = [];
        }
        $this->questions = [];
        if ($this->asking !== 0 && $this->reply === null) {
            $this->reply = [0, 'no_consumer', 'the router went away', '', new Bytes('')];
        }
        // Spread, so that many clients of one router do not come back in the same moment.
        $this->connectAt = self::now() + $this->pauseS * random_int(50, 100) / 100;
        $this->pauseS = min($this->pauseS * 2, self::PAUSE_S[1]);
    }

    private function send(string $verb, array $fields): void
    {
        $this->connection->send($verb, Frames::write($verb, $fields));
    }

    private function hear(array $parts): void
    {
        try {
            [$verb, $fields] = Frames::read($parts);
        } catch (FrameError $error) {
            if ($parts[0] === 'DELIVER') {
                $this->onUnreadable($parts[1] ?? '');
            }
            $this->tell($error->busCode(), $error->sentence(), 'what the router said');
            return;
        }
        switch ($verb) {
            case 'WELCOME':
                $this->onWelcome($fields);
                break;
            case 'ACCEPTED':
                if ($this->batch !== null && in_array($this->batch->number, $fields[0], true)) {
                    $this->batch->done = true;
                }
                break;
            case 'REFUSED':
                $this->onRefused(...$fields);
                break;
            case 'DELIVER':
                $this->onDeliver(...$fields);
                break;
            case 'REQUEST':
                if (isset($this->servers[$fields[1]])) {
                    $this->questions[] = $fields;
                } else { // whoever asks need not wait for nothing
                    $this->send('REPLY', [$fields[0], 'no_consumer', "$this->name does not answer"]);
                }
                break;
            case 'REPLY':
                if ($fields[0] === $this->asking) {
                    $this->reply = $fields;
                }
                break;
            case 'PING':
                $this->send('PONG', $fields);
                break;
            case 'BYE':
                $this->lose();
                break;
            case 'ERROR':
                $this->onRouterError(...$fields);
                break;
        }
    }

    private function onWelcome(array $welcome): void
    {
        $this->welcome = $welcome;
        [, , $this->bus, , , $batchMax, , $frameMax] = $welcome;
        $this->batchMax = max(1, min($batchMax, Frames::BATCH_MAX));
        $this->frameMax = max(1, $frameMax - Frames::FRAME_SPARE);
        $this->welcomedAt = self::now();
        $this->told = [];
        // Before CREDIT, so that what these settle is not delivered again.
        $settled = $this->settledAway;
        $this->settledAway = $this->acked = [];
        foreach ($settled as $settlement) {
            $this->settle($settlement);
        }
        $this->grantAll();
        if ($this->batch !== null && !$this->batch->done) {
            $this->sendBatch();
        }
    }

    private function grantAll(): void
    {
        foreach ($this->windows as $destination => $window) {
            $this->grant((string) $destination, $window);
        }
    }

    private function onRefused(int $number, array $refusals): void
    {
        $batch = $this->batch;
        if ($batch === null || $batch->number !== $number) {
            return;
        }
        foreach ($refusals as [$index, $code, $sentence, $retryAfterMs]) {
            $batch->refused[$index] = new Refused($code, $sentence, $retryAfterMs);
        }
        $batch->done = count($batch->refused) === $batch->count; // else ACCEPTED follows
    }

    private function onDeliver(string $destination, array $deliveries): void
    {
        foreach ($deliveries as $fields) {
            $key = "$fields[3]-$fields[0]";
            if (isset($this->held[$key])) {
                continue; // of before a loss: its settlement, when it comes, counts for this one, too
            }
            $delivery = new Delivery($this, $this->bus, $fields);
            if (isset($this->ready[$destination])) {
                $this->held[$key] = true;
                $this->ready[$destination][] = $delivery;
            } else { // sent before the router heard that nobody takes it here any more
                $delivery->retry('client.closed', 0);
            }
        }
    }

    /** Reject what cannot be read of a DELIVER: unsettled it would stay with this session. */
    private function onUnreadable(string $payload): void
    {
        try {
            [$destination, $deliveries] = MessagePack::decode($payload);
            foreach ($deliveries as $fields) {
                try {
                    $this->onDeliver($destination, [Frames::check('delivery', $fields)]);
                } catch (FrameError $error) {
                    $note = 'client.unreadable';
                    $this->settle([$fields[0], Frames::REJECT, null, $note, $fields[3] ?? '', false]);
                }
            }
        } catch (\Throwable $error) {
            return; // not even that much: it was told
        }
    }

    private function onRouterError(string $code, string $sentence, string $verb, ?int $number): void
    {
        if (in_array($code, self::FATAL, true)) {
            $this->fatal = new BusError($code, $sentence);
            $this->connection = null;
            $this->welcome = [];
            return;
        }
        if ($code === 'hello_required') {
            if ($this->welcome !== []) { // else the greeting is under way
                // The session was over, who knows since when: a repeat does no harm.
                $this->settledAway = array_merge($this->acked, $this->settledAway);
                $this->acked = [];
                $this->lose();
            }
            return;
        }
        if ($verb === 'PUBLISH' && $this->batch !== null && $this->batch->number === $number) {
            for ($at = 0; $at < $this->batch->count; $at++) {
                $this->batch->refused[$at] = new Refused($code, $sentence);
            }
            $this->batch->done = $this->batch->untaken = true;
            return;
        }
        if ($verb === 'REQUEST' && $this->asking !== 0 && $this->asking === $number) {
            $this->reply = [$number, $code, $sentence, '', new Bytes('')];
            return;
        }
        if ($verb === 'CREDIT') {
            $this->grantAt = self::now() + self::GRANT_AFTER_S;
        }
        $this->tell($code, $sentence, $verb);
        if ($verb === 'SETTLE' && $code === 'bad_frame') { // what it held stays with this session
            $this->send('BYE', ['a settlement was not taken']);
            $this->connection->linger();
            $this->lose();
        }
    }

    /** Tell of an error, once in a session. */
    private function tell(string $code, string $sentence, string $verb): void
    {
        if (!isset($this->told["$verb $code"])) {
            $this->told["$verb $code"] = true;
            ($this->onError)($code, $sentence, $verb);
        }
    }
}
