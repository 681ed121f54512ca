<?php
declare(strict_types=1);

namespace Smpbus;

/**
 * The payloads of the protocol as lists, in the order of SPEC.md: what each verb holds, with the
 * limits, for reading and for writing. `read` fills in defaults and passes over what a later version
 * added at the end.
 */
final class Frames
{
    public const INT_MAX = PHP_INT_MAX;
    public const BATCH_MAX = 4096;
    public const NOTE_MAX = 300;
    public const FRAME_BYTES_MAX = 16777216;
    public const FRAME_SPARE = 64;
    public const REPORT_BYTES_MAX = 16384;

    public const ACK = 0;
    public const RETRY = 1;
    public const REJECT = 2;

    private const NAME = '/\A[a-z][a-z0-9_-]{0,63}\z/';

    /** What a peer says. */
    public const TO_ROUTER = [
        'HELLO', 'PUBLISH', 'CREDIT', 'SETTLE', 'REQUEST', 'REPLY', 'REPORT', 'PING', 'PONG', 'BYE',
        'ERROR',
    ];
    /** What a peer hears. */
    public const TO_PEER = [
        'WELCOME', 'ACCEPTED', 'REFUSED', 'DELIVER', 'REQUEST', 'REPLY', 'PING', 'PONG', 'BYE',
        'ERROR',
    ];

    /**
     * The fields of a payload by name. A field is [kind, limits..., and 'default' => if optional]:
     * int(least, most), str(least, most characters), name, bin(most bytes), bool,
     * array(of, least, most), message, and 'null' => true where nil is taken, too.
     */
    private static function fieldsOf(string $shape): array
    {
        $int = ['int', 0, self::INT_MAX];
        $any = ['str', 0, self::INT_MAX];
        $optional = ['default' => null, 'null' => true];
        switch ($shape) {
            case 'HELLO':
                return [['array', $int, 0, 64], ['name'], ['str', 0, 128, 'default' => '']];
            case 'WELCOME':
                return [$int, $any, $any, $int, $int, $int, $int,
                    $int + ['default' => self::FRAME_BYTES_MAX]];
            case 'PUBLISH':
                return [$int, ['array', ['message'], 1, self::BATCH_MAX]];
            case 'ACCEPTED':
                return [['array', $int, 0, self::INT_MAX]];
            case 'REFUSED':
                return [$int, ['array', ['refusal'], 0, self::INT_MAX]];
            case 'refusal':
                return [$int, $any, $any, $int + $optional];
            case 'CREDIT':
                return [['name'], ['int', 0, 100000], ['bool'] + $optional];
            case 'DELIVER':
                return [$any, ['array', ['delivery'], 0, self::INT_MAX]];
            case 'delivery':
                return [$int, $int, ['message'], ['str', 0, 64, 'default' => '']];
            case 'SETTLE':
                return [['array', ['settlement'], 1, self::BATCH_MAX]];
            case 'settlement':
                return [$int, ['int', 0, 2, 'default' => 0], ['int', 0, 2 ** 53] + $optional,
                    ['str', 0, self::NOTE_MAX] + $optional, ['str', 0, 64] + $optional,
                    ['bool', 'default' => false]];
            case 'REQUEST':
                return [$int, ['name'], ['int', 1, 600000], ['message']];
            case 'REPLY':
                return [$int, ['str', 0, 64, 'default' => ''],
                    ['str', 0, self::NOTE_MAX, 'default' => ''],
                    ['str', 0, 256, 'default' => 'application/json'],
                    ['bin', self::INT_MAX, 'default' => new Bytes('')]];
            case 'REPORT':
                return [['bin', self::REPORT_BYTES_MAX]];
            case 'PING':
            case 'PONG':
                return [$int + ['default' => 0]];
            case 'BYE':
                return [$any + ['default' => '']];
            case 'ERROR':
                return [$any, $any, $any + ['default' => ''], $int + $optional];
            default: // message
                return [['str', 1, 128], ['type'], ['str', 0, 64], ['str', 0, 256], $int,
                    ['int', 0, 3, 'default' => 2], $int + $optional, $int + $optional,
                    ['bytes', 256] + $optional, ['bytes', 4096] + $optional,
                    ['bytes', 256] + $optional, ['bytes', 256, 'default' => 'application/json'],
                    ['bin', self::INT_MAX, 'default' => new Bytes('')]];
        }
    }

    /**
     * Read the parts of one ZeroMQ message: [verb, fields]. Throws FrameError.
     *
     * @param string[] $parts
     * @param string[] $verbs those that may be heard
     */
    public static function read(array $parts, array $verbs = self::TO_PEER): array
    {
        if (count($parts) !== 2) {
            throw new FrameError('bad_frame', 'expected 2 frames [verb, payload]');
        }
        [$verb, $payload] = $parts;
        if (!in_array($verb, $verbs, true)) {
            throw new FrameError('unknown_verb', 'this verb is not known here');
        }
        try {
            return [$verb, self::check($verb, MessagePack::decode($payload))];
        } catch (FrameError $error) {
            throw new FrameError('bad_frame', $error->sentence());
        }
    }

    /** Make the payload of a verb. Throws FrameError for what breaks the specification. */
    public static function write(string $verb, array $fields): string
    {
        return MessagePack::encode(self::check($verb, $fields));
    }

    /**
     * Return the fields of a shape with defaults filled in. Throws FrameError naming the place.
     *
     * @param mixed $given
     */
    public static function check(string $shape, $given): array
    {
        static $shapes = [];
        $fields = $shapes[$shape] = $shapes[$shape] ?? self::fieldsOf($shape);
        if (!is_array($given)) {
            throw self::broken($shape, 'expected an array');
        }
        $found = [];
        foreach ($fields as $at => $field) {
            if ($at < count($given)) {
                $found[] = self::value($field, $given[$at], $shape, $at);
            } elseif (array_key_exists('default', $field)) {
                $found[] = $field['default'];
            } else {
                throw self::broken($shape, "field $at is missing");
            }
        }
        return $found;
    }

    /**
     * @param mixed $value
     * @return mixed
     */
    private static function value(array $field, $value, string $shape, int $at)
    {
        if ($value === null && isset($field['null'])) {
            return null;
        }
        switch ($field[0]) {
            case 'int':
                $right = is_int($value) && $value >= $field[1] && $value <= $field[2];
                break;
            case 'bool':
                $right = is_bool($value);
                break;
            case 'str':
                $right = is_string($value) && self::hasLength($value, $field[1], $field[2]);
                break;
            case 'bytes': // text, measured in bytes
                $right = is_string($value) && strlen($value) <= $field[1];
                break;
            case 'name':
                $right = is_string($value) && preg_match(self::NAME, $value) === 1;
                break;
            case 'type':
                $right = is_string($value) && strlen($value) <= 128
                    && preg_match('/\A[a-z0-9_]+(\.[a-z0-9_]+)+\z/', $value) === 1;
                break;
            case 'bin':
                $right = $value instanceof Bytes && strlen($value->value) <= $field[1];
                break;
            case 'array':
                $right = is_array($value)
                    && count($value) >= $field[2] && count($value) <= $field[3];
                if ($right) {
                    foreach ($value as $index => $one) {
                        $value[$index] = self::value($field[1], $one, $shape, $at);
                    }
                }
                break;
            default: // a shape of its own
                return self::check($field[0], $value);
        }
        if (!$right) {
            throw self::broken($shape, "field $at is not as the specification says");
        }
        return $value;
    }

    /** The sentence names the place and never what stands there. */
    private static function broken(string $shape, string $what): FrameError
    {
        return new FrameError($shape === 'message' ? 'bad_message' : 'bad_frame', "$shape: $what");
    }

    /** Whether a text has so many characters (code points, not bytes); false if it is not UTF-8. */
    private static function hasLength(string $text, int $least, int $most): bool
    {
        if (preg_match('//u', $text) !== 1) {
            return false;
        }
        if (strlen($text) >= $least && strlen($text) <= $most && $least <= 1) {
            return true;
        }
        $length = preg_match_all('/./su', $text);
        return $length >= $least && $length <= $most;
    }

    /** Return a text that may be a note: UTF-8, at most so many characters. */
    public static function words(string $text, int $most = self::NOTE_MAX): string
    {
        $encoded = json_encode($text, JSON_INVALID_UTF8_SUBSTITUTE);
        preg_match('/\A.{0,' . $most . '}/su', json_decode((string) $encoded), $found);
        return $found[0];
    }
}
