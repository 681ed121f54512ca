<?php
declare(strict_types=1);

namespace Smpbus;

/** The router could not be reached, or did not answer, in the time given. */
final class NotConnected extends BusError
{
    public function __construct(string $sentence)
    {
        parent::__construct('not_connected', $sentence);
    }
}
