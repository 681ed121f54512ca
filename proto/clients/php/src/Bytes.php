<?php
declare(strict_types=1);

namespace Smpbus;

/** A string of MessagePack's bin family: the wire tells it from text, PHP does not. */
final class Bytes
{
    public string $value;

    public function __construct(string $value)
    {
        $this->value = $value;
    }
}
