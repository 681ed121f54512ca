<?php
declare(strict_types=1);

namespace Smpbus;

/**
 * What the protocol needs of MessagePack: nil, bool, int, str, bin and array.
 *
 * A PHP string is text (str), a Bytes is bytes (bin), whole numbers are never written as floats.
 */
final class MessagePack
{
    private const DEPTH_MAX = 16;

    private string $data;
    private int $at = 0;

    private function __construct(string $data)
    {
        $this->data = $data;
    }

    /** @param null|bool|int|string|Bytes|array $value */
    public static function encode($value): string
    {
        if ($value === null) {
            return "\xc0";
        }
        if (is_bool($value)) {
            return $value ? "\xc3" : "\xc2";
        }
        if (is_int($value)) {
            return self::integer($value);
        }
        if (is_string($value)) {
            $length = strlen($value);
            return ($length < 32 ? chr(0xa0 | $length) : self::length($length, 0xd9)) . $value;
        }
        if ($value instanceof Bytes) {
            return self::length(strlen($value->value), 0xc4) . $value->value;
        }
        if (is_array($value)) {
            $parts = array_map([self::class, 'encode'], array_values($value));
            return self::arrayHead(count($parts)) . implode('', $parts);
        }
        throw new \InvalidArgumentException('the protocol has no place for a ' . gettype($value));
    }

    /** The head of an array, for whoever has its elements encoded already. */
    public static function arrayHead(int $count): string
    {
        if ($count < 16) {
            return chr(0x90 | $count);
        }
        return $count < 0x10000 ? "\xdc" . pack('n', $count) : "\xdd" . pack('N', $count);
    }

    private static function integer(int $value): string
    {
        if ($value >= 0 && $value < 0x80) {
            return chr($value);
        }
        if ($value < 0) {
            return "\xd3" . pack('J', $value);
        }
        if ($value < 0x10000) {
            return $value < 0x100 ? "\xcc" . chr($value) : "\xcd" . pack('n', $value);
        }
        return $value <= 0xffffffff ? "\xce" . pack('N', $value) : "\xcf" . pack('J', $value);
    }

    /** The head of a str or bin; `$family` is the one with a length of one byte. */
    private static function length(int $length, int $family): string
    {
        if ($length < 0x100) {
            return chr($family) . chr($length);
        }
        if ($length < 0x10000) {
            return chr($family + 1) . pack('n', $length);
        }
        return chr($family + 2) . pack('N', $length);
    }

    /**
     * Read one value and nothing after it.
     *
     * @return null|bool|int|string|Bytes|array|float float: of a number that is none of the protocol
     * @throws FrameError
     */
    public static function decode(string $data)
    {
        $reader = new self($data);
        $value = $reader->value(0);
        if ($reader->at !== strlen($data)) {
            throw new FrameError('bad_frame', 'bytes after the payload');
        }
        return $value;
    }

    private function take(int $length): string
    {
        if (strlen($this->data) - $this->at < $length) {
            throw new FrameError('bad_frame', 'the payload is cut short');
        }
        $part = substr($this->data, $this->at, $length);
        $this->at += $length;
        return $part;
    }

    private function number(string $format, int $length): int
    {
        return unpack($format, $this->take($length))[1];
    }

    private function text(int $length): string
    {
        $text = $this->take($length);
        if (preg_match('//u', $text) !== 1) {
            throw new FrameError('bad_frame', 'text is not UTF-8');
        }
        return $text;
    }

    private function many(int $count, int $depth): array
    {
        if ($depth >= self::DEPTH_MAX) {
            throw new FrameError('bad_frame', 'nested too deeply');
        }
        $items = [];
        while ($count-- > 0) {
            $items[] = $this->value($depth + 1);
        }
        return $items;
    }

    /** A map can only stand where a later version put it: it is read to be passed over. */
    private function pairs(int $count, int $depth): float
    {
        $this->many(2 * $count, $depth);
        return NAN;
    }

    /** An extension and a float, too. */
    private function passOver(int $length): float
    {
        $this->take($length);
        return NAN;
    }

    private function unsigned(): int
    {
        $value = $this->number('J', 8);
        if ($value < 0) {
            throw new FrameError('bad_frame', 'a number of more than 63 bits');
        }
        return $value;
    }

    /** @return null|bool|int|string|Bytes|array|float */
    private function value(int $depth)
    {
        $head = ord($this->take(1));
        if ($head < 0x80) {
            return $head;
        }
        if ($head < 0xc0) {
            if ($head < 0x90) {
                return $this->pairs($head & 15, $depth);
            }
            return $head < 0xa0 ? $this->many($head & 15, $depth) : $this->text($head & 31);
        }
        if ($head >= 0xe0) {
            return $head - 256;
        }
        switch ($head) {
            case 0xc0: return null;
            case 0xc2: return false;
            case 0xc3: return true;
            case 0xc4: return new Bytes($this->take($this->number('C', 1)));
            case 0xc5: return new Bytes($this->take($this->number('n', 2)));
            case 0xc6: return new Bytes($this->take($this->number('N', 4)));
            case 0xc7: return $this->passOver($this->number('C', 1) + 1);
            case 0xc8: return $this->passOver($this->number('n', 2) + 1);
            case 0xc9: return $this->passOver($this->number('N', 4) + 1);
            case 0xca: return $this->passOver(4);
            case 0xcb: return $this->passOver(8);
            case 0xcc: return $this->number('C', 1);
            case 0xcd: return $this->number('n', 2);
            case 0xce: return $this->number('N', 4);
            case 0xcf: return $this->unsigned();
            case 0xd0: return $this->number('c', 1);
            case 0xd1: return ($this->number('n', 2) ^ 0x8000) - 0x8000;
            case 0xd2: return ($this->number('N', 4) ^ 0x80000000) - 0x80000000;
            case 0xd3: return $this->number('J', 8);
            case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
                return $this->passOver((1 << ($head - 0xd4)) + 1);
            case 0xd9: return $this->text($this->number('C', 1));
            case 0xda: return $this->text($this->number('n', 2));
            case 0xdb: return $this->text($this->number('N', 4));
            case 0xdc: return $this->many($this->number('n', 2), $depth);
            case 0xdd: return $this->many($this->number('N', 4), $depth);
            case 0xde: return $this->pairs($this->number('n', 2), $depth);
            case 0xdf: return $this->pairs($this->number('N', 4), $depth);
            default: throw new FrameError('bad_frame', 'the payload is not MessagePack');
        }
    }
}
