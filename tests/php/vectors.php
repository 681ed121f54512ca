<?php
/**
 * The golden vectors in PHP: every valid frame means what it should, and is written so that it means
 * the same; of every invalid one its reader says so.
 *
 *   php vectors.php FOLDER
 */
declare(strict_types=1);

use Smpbus\Bytes;
use Smpbus\FrameError;
use Smpbus\Frames;
use Smpbus\MessagePack;

require __DIR__ . '/../../proto/clients/php/autoload.php';

const SHAPE_CODES = ['bad_frame', 'unknown_verb', 'bad_message'];

function fail(array $vector, string $what): void
{
    fwrite(STDERR, "$vector[name]: $what\n");
    exit(1);
}

/** Bytes as the vectors write them. */
function meaningOf($value)
{
    if (is_array($value)) {
        return array_map('meaningOf', $value);
    }
    return $value instanceof Bytes ? ['hex' => bin2hex($value->value)] : $value;
}

function fieldsOf($meaning)
{
    if (!is_array($meaning)) {
        return $meaning;
    }
    return isset($meaning['hex']) ? new Bytes(hex2bin($meaning['hex'])) : array_map('fieldsOf', $meaning);
}

function load(string $name): array
{
    global $argv;
    $json = file_get_contents("$argv[1]/$name.json");
    return json_decode($json, true, 64, JSON_THROW_ON_ERROR);
}

function verbsOf(array $vector): array
{
    return $vector['direction'] === 'to_router' ? Frames::TO_ROUTER : Frames::TO_PEER;
}

/** What a reader says of a frame: the messages of a PUBLISH are looked at each for itself. */
function codeOf(array $vector): string
{
    $parts = array_map('hex2bin', $vector['frames']);
    try {
        if ($vector['code'] === 'bad_message') {
            Frames::check('message', MessagePack::decode($parts[1])[1][0]);
        }
        Frames::read($parts, verbsOf($vector));
    } catch (FrameError $error) {
        return $error->busCode();
    }
    return '';
}

$valid = load('valid');
foreach ($valid as $vector) {
    $parts = array_map('hex2bin', $vector['frames']);
    [$verb, $fields] = Frames::read($parts, verbsOf($vector));
    if ($verb !== $vector['verb'] || meaningOf($fields) !== $vector['meaning']) {
        fail($vector, 'means ' . json_encode(meaningOf($fields), JSON_UNESCAPED_UNICODE));
    }
    $written = Frames::write($verb, fieldsOf($vector['meaning']));
    [, $again] = Frames::read([$verb, $written], verbsOf($vector));
    if (meaningOf($again) !== $vector['meaning']) {
        fail($vector, 'is written as something else: ' . bin2hex($written));
    }
}
$invalid = load('invalid');
foreach ($invalid as $vector) {
    // What is permitted, and whose name it is, only the router knows: these are read.
    $wanted = in_array($vector['code'], SHAPE_CODES, true) ? $vector['code'] : '';
    if (strpos($vector['name'], 'not UTF-8') !== false) {
        $wanted = 'bad_frame'; // here text is looked at before it is known whose it is
    }
    if (codeOf($vector) !== $wanted) {
        fail($vector, 'is taken for "' . codeOf($vector) . "\", not \"$wanted\"");
    }
}
echo count($valid), ' valid, ', count($invalid), " invalid\n";
