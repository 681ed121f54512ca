<?php
declare(strict_types=1);

namespace Smpbus;

/** The bus said no. The code of the bus is for programs, the sentence for people. */
class BusError extends \RuntimeException
{
    private string $busCode;
    private string $sentence;

    public function __construct(string $busCode, string $sentence)
    {
        parent::__construct("$busCode: $sentence");
        $this->busCode = $busCode;
        $this->sentence = $sentence;
    }

    /** A stable word, as "not_permitted": section 11 of the specification lists them. */
    public function busCode(): string
    {
        return $this->busCode;
    }

    public function sentence(): string
    {
        return $this->sentence;
    }
}
