<?php
declare(strict_types=1);

namespace Smpbus;

/** The answer to a question. */
final class Reply
{
    public string $contentType;
    public string $body;

    public function __construct(string $contentType, string $body)
    {
        $this->contentType = $contentType;
        $this->body = $body;
    }

    /**
     * The body decoded from JSON, as by Message::json().
     *
     * @return mixed
     * @throws \JsonException
     */
    public function json()
    {
        return Message::decodeJson($this->body);
    }
}
