<?php
/**
 * The PHP client at work, for tests/integration/scenes.py, which says what is to come out.
 *
 *   php talk.php ADDRESS KEYS_FOLDER SCENARIO
 *
 * Every step is a JSON line on stdout; a line on stdin lets it go on. tests/node/talk.mjs does the same.
 */
declare(strict_types=1);

use Smpbus\BusClient;
use Smpbus\BusError;
use Smpbus\Delivery;
use Smpbus\KeyPair;
use Smpbus\Message;
use Smpbus\Refused;
use Smpbus\RequestFailed;

require __DIR__ . '/../../proto/clients/php/autoload.php';

set_error_handler(static function (int $level, string $message, string $file, int $line): bool {
    throw new ErrorException($message, 0, $level, $file, $line); // a warning is a failure here
});

function tell(string $what, array $facts = []): void
{
    echo json_encode(['what' => $what] + $facts, JSON_UNESCAPED_UNICODE), "\n";
    flush();
}

function codeOf(?Refused $refused): ?string
{
    return $refused === null ? null : $refused->busCode();
}

/** Wait for a line on stdin, at work on the bus meanwhile if a client is given. */
function waitForLeave(?BusClient $bus = null): void
{
    if ($bus === null) {
        fgets(STDIN);
        return;
    }
    do {
        $bus->keepAlive();
        $readable = [STDIN];
        $none = null;
    } while (stream_select($readable, $none, $none, 0, 100000) === 0);
    fgets(STDIN);
}

function talk(BusClient $bus): void
{
    $messages = [];
    foreach (['принят', 'назначен', 'завершён'] as $n => $status) {
        $envelope = ['subject' => '112-4711', 'id' => "vendor-$n", 'priority' => Message::URGENT,
            'correlation_id' => 'a b'];
        $messages[] = $bus->message('test.status.v1', ['status' => $status], $envelope);
    }
    $messages[] = $bus->message('other.status.v1');
    tell('published', ['refused' => array_map('codeOf', $bus->publishMany($messages))]);
    try {
        $bus->publish(end($messages));
    } catch (Refused $refused) {
        tell('refused', ['code' => $refused->busCode(), 'later' => $refused->retryAfterMs()]);
    }
    $seen = [];
    foreach ($bus->consume('inbox', 10) as $delivery) {
        $body = $delivery->message->json();
        tell('delivered', ['id' => $delivery->message->id, 'source' => $delivery->message->source,
            'attempt' => $delivery->attempt, 'key' => $delivery->key(), 'body' => $body]);
        if ($delivery->message->id === 'vendor-0' && $delivery->attempt === 1) {
            $delivery->retry('later', 0.05);
            continue;
        }
        $seen[] = $delivery->message->id;
        if ($delivery->message->id === 'vendor-2') {
            $delivery->reject('of no use');
        } else {
            $delivery->ack('HTTP 200');
        }
        if (count($seen) === 4) {
            break;
        }
    }
    $answer = $bus->request('python', $bus->message('test.question.v1', ['n' => 20]), 10.0);
    tell('answered', ['body' => $answer->json()]);
    foreach (['nobody', 'python'] as $destination) {
        try {
            $bus->request($destination, $bus->message('test.question.v1', ['n' => 'не число']), 10.0);
        } catch (RequestFailed $failed) {
            tell('failed', ['code' => $failed->busCode()]);
        }
    }
    $asked = 0;
    $bus->serve('inbox', static function (Message $question) use (&$asked): array {
        $asked++;
        if ($question->json()['n'] < 0) {
            throw new DomainException('personal data of somebody');
        }
        return ['n' => $question->json()['n'] + 1];
    });
    $bus->keepAlive();
    tell('serving');
    while ($asked < 2) {
        $bus->run(0.1);
    }
    $bus->report(['set_aside' => 7]);
    $bus->close();
    tell('bye');
}

function full(BusClient $bus): void
{
    $messages = [];
    for ($n = 0; $n < 6; $n++) {
        $messages[] = $bus->message('small.message.v1', ['n' => $n], ['subject' => 'one']);
    }
    tell('publishing');
    $refused = $bus->publishMany($messages, 20.0);
    tell('published', ['refused' => array_map('codeOf', $refused)]);
    $large = $bus->message('small.message.v1', str_repeat('x', 2000));
    tell('large', ['refused' => array_map('codeOf', $bus->publishMany([$large, $large]))]);
    $frame = $bus->message('small.message.v1', str_repeat('x', 5000000));
    tell('frame', ['refused' => codeOf($bus->publishMany([$frame])[0])]);
}

function outage(BusClient $bus): void
{
    for ($n = 0; $n < 30; $n++) {
        $bus->publish($bus->message('test.message.v1', ['n' => $n], ['subject' => 'one']), 30.0);
        tell('published', ['n' => $n]);
    }
    $seen = [];
    foreach ($bus->consume('inbox', 4) as $delivery) {
        $seen[] = $delivery->message->json()['n'];
        if (count($seen) === 1) {
            tell('holding');
            waitForLeave();
        }
        $delivery->ack();
        if (end($seen) === 29) {
            break;
        }
    }
    tell('consumed', ['seen' => $seen]);
}

function slow(BusClient $bus): void
{
    foreach ($bus->consume('inbox') as $delivery) {
        tell('holding', ['attempt' => $delivery->attempt]);
        waitForLeave($bus);
        $delivery->ack();
        break;
    }
    $bus->close();
    tell('done');
}

function unwelcome(BusClient $bus): void
{
    $bus->onError = static function (string $code, string $sentence, string $verb): void {
        tell('error', ['code' => $code, 'verb' => $verb]);
    };
    foreach ($bus->consume('secret') as $delivery) {
        tell('delivered', ['body' => $delivery->message->json()]);
        $delivery->ack();
        break;
    }
}

function stranger(BusClient $bus): void
{
    try {
        $bus->connect();
    } catch (BusError $error) {
        tell('stranger', ['code' => $error->busCode()]);
    }
}

[, $address, $keys, $scenario] = $argv;
$key = KeyPair::load($keys . ($scenario === 'stranger' ? '/../elsewhere' : '') . '/vendor.key');
$timeoutS = $scenario === 'stranger' ? 1.0 : 10.0;
$bus = new BusClient($address, 'vendor', $key, KeyPair::loadPublic("$keys/router.pub"), $timeoutS);
$scenario($bus);
