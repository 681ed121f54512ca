<?php
declare(strict_types=1);

namespace Smpbus;

/** A message was not accepted. */
final class Refused extends BusError
{
    private ?int $retryAfterMs;

    public function __construct(string $busCode, string $sentence, ?int $retryAfterMs = null)
    {
        parent::__construct($busCode, $sentence);
        $this->retryAfterMs = $retryAfterMs;
    }

    /** After how many milliseconds the same message may be accepted; null: never. */
    public function retryAfterMs(): ?int
    {
        return $this->retryAfterMs;
    }
}
