<?php
declare(strict_types=1);

namespace Smpbus;

/** One message to be settled: by `ack`, `retry` or `reject`, once. */
final class Delivery
{
    public int $id;
    /** Counts from 1. */
    public int $attempt;
    public Message $message;
    public string $generation;

    private BusClient $client;
    private string $bus;
    private bool $settled = false;

    public function __construct(BusClient $client, string $bus, array $fields)
    {
        $this->client = $client;
        $this->bus = $bus;
        [$this->id, $this->attempt, $message, $this->generation] = $fields;
        $this->message = new Message($message);
    }

    /** The idempotency key: the same at every attempt, for ever, and never that of another message. */
    public function key(): string
    {
        return $this->bus . ($this->generation === '' ? '-' : "-$this->generation-") . $this->id;
    }

    /** Done. The note (the partner's answer, no personal data) is what operators read. */
    public function ack(?string $note = null): void
    {
        $this->settle(Frames::ACK, null, $note);
    }

    /**
     * Not now: again after so many seconds, or by the destination's policy. With `$wish` the seconds
     * are what the partner asks for (an HTTP Retry-After), and the policy bounds them.
     */
    public function retry(string $reason, ?float $afterS = null, bool $wish = false): void
    {
        if ($afterS !== null && !($afterS >= 0)) {
            throw new \InvalidArgumentException("a pause of $afterS seconds");
        }
        $afterMs = $afterS === null ? null : (int) min($afterS * 1000, 2 ** 53);
        $this->settle(Frames::RETRY, $afterMs, $reason, $wish);
    }

    /** Never: the message becomes a dead letter with this reason. */
    public function reject(string $reason): void
    {
        $this->settle(Frames::REJECT, null, $reason);
    }

    public function isSettled(): bool
    {
        return $this->settled;
    }

    private function settle(int $outcome, ?int $afterMs, ?string $note, bool $wish = false): void
    {
        if ($this->settled) {
            throw new \LogicException('this delivery is settled already');
        }
        $this->settled = true;
        $note = $note === null ? null : Frames::words($note);
        $this->client->settle([$this->id, $outcome, $afterMs, $note, $this->generation, $wish]);
    }
}
