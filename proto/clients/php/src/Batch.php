<?php
declare(strict_types=1);

namespace Smpbus;

/** Messages that were published in one frame, and what became of them. */
final class Batch
{
    public int $number;
    public string $payload;
    public int $count;
    /** @var array<int, Refused> by index */
    public array $refused = [];
    /** Every message of it is accepted or refused. */
    public bool $done = false;
    /** The router cannot take this frame, and nothing of it was done: to be divided. */
    public bool $untaken = false;

    public function __construct(int $number, array $messages)
    {
        $this->number = $number;
        $this->count = count($messages);
        $this->payload = MessagePack::arrayHead(2) . MessagePack::encode($number)
            . MessagePack::arrayHead($this->count) . implode('', $messages);
    }
}
