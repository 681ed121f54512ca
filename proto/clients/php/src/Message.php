<?php
declare(strict_types=1);

namespace Smpbus;

/** An envelope (in the meaning of CloudEvents 1.0) and a body. Times are milliseconds since 1970 UTC. */
final class Message
{
    public const EMERGENCY = 0;
    public const URGENT = 1;
    public const ROUTINE = 2;
    public const BULK = 3;

    private const ENVELOPE = [
        'id', 'type', 'source', 'subject', 'time', 'priority', 'not_before', 'expires', 'reply_to',
        'correlation_id', 'traceparent', 'content_type',
    ];

    public string $id;
    public string $type;
    public string $source;
    /** Messages of one subject stay in order; "" means no order. */
    public string $subject;
    public int $time;
    public int $priority;
    public ?int $notBefore;
    public ?int $expires;
    public ?string $replyTo;
    public ?string $correlationId;
    public ?string $traceparent;
    public string $contentType;
    public string $body;

    /** @param array $fields as they are on the wire. Throws FrameError (`bad_message`). */
    public function __construct(array $fields)
    {
        [$this->id, $this->type, $this->source, $this->subject, $this->time, $this->priority,
            $this->notBefore, $this->expires, $this->replyTo, $this->correlationId,
            $this->traceparent, $this->contentType, $body] = Frames::check('message', $fields);
        $this->body = $body->value;
    }

    /**
     * Make a message now. A body that is no string is encoded as JSON; mind that PHP's empty array
     * is `[]` there, and `new \stdClass()` is `{}`.
     *
     * @param mixed $body
     * @param array $envelope of: id, subject, time, priority, not_before, expires, reply_to,
     *     correlation_id, traceparent, content_type
     */
    public static function create(string $type, string $source, $body = '', array $envelope = []): self
    {
        if ($unknown = array_diff(array_keys($envelope), self::ENVELOPE)) {
            throw new \InvalidArgumentException('no such field: ' . implode(', ', $unknown));
        }
        $now = (int) floor(microtime(true) * 1000);
        $given = $envelope + ['id' => self::newId($now), 'subject' => '', 'time' => $now,
            'priority' => self::ROUTINE, 'content_type' => 'application/json'];
        $given = ['type' => $type, 'source' => $source] + $given;
        $fields = [];
        foreach (self::ENVELOPE as $name) {
            $fields[] = $given[$name] ?? null;
        }
        return new self([...$fields, new Bytes(is_string($body) ? $body : self::encodeJson($body))]);
    }

    /** @return array the fields as they are on the wire */
    public function fields(): array
    {
        return [$this->id, $this->type, $this->source, $this->subject, $this->time, $this->priority,
            $this->notBefore, $this->expires, $this->replyTo, $this->correlationId,
            $this->traceparent, $this->contentType, new Bytes($this->body)];
    }

    /**
     * The body decoded from JSON: objects as arrays, whole numbers beyond 64 bits as strings.
     *
     * @return mixed
     * @throws \JsonException
     */
    public function json()
    {
        return self::decodeJson($this->body);
    }

    /** @param mixed $value */
    public static function encodeJson($value): string
    {
        return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE
            | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION);
    }

    /** @return mixed */
    public static function decodeJson(string $json)
    {
        return json_decode($json, true, 64, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
    }

    /** A UUID version 7: it grows with time, which makes the router's look for repeats cheap. */
    public static function newId(?int $nowMs = null): string
    {
        $bytes = substr(pack('J', $nowMs ?? (int) floor(microtime(true) * 1000)), 2) . random_bytes(10);
        $bytes[6] = chr(ord($bytes[6]) & 0x0f | 0x70);
        $bytes[8] = chr(ord($bytes[8]) & 0x3f | 0x80);
        return vsprintf('%s%s-%s-%s-%s-%s%s%s', str_split(bin2hex($bytes), 4));
    }
}
