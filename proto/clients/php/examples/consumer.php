<?php
/**
 * Prints what comes to a queue and answers questions to it, until SIGTERM or Ctrl-C.
 *
 *   php consumer.php tcp://bus.example:7100 sitcentre /etc/smpbus/keys
 */
declare(strict_types=1);

use Smpbus\BusClient;
use Smpbus\BusError;
use Smpbus\KeyPair;
use Smpbus\Message;

require __DIR__ . '/../autoload.php';

[, $address, $name, $keys] = $argv + array_fill(0, 4, '');
if ($keys === '') {
    fwrite(STDERR, "usage: php consumer.php ADDRESS NAME KEYS_FOLDER\n");
    exit(64);
}
try {
    $key = KeyPair::load("$keys/$name.key");
    $bus = new BusClient($address, $name, $key, KeyPair::loadPublic("$keys/router.pub"));
    $going = true;
    // Not pcntl_async_signals: PHP forgets a handler that is due while an exception is thrown, as the
    // interrupted poll of php-zmq does.
    foreach ([SIGTERM, SIGINT] as $signal) {
        pcntl_signal($signal, static function () use (&$going): void {
            $going = false;
        });
    }
    $taken = 0;
    $bus->serve($name, static function (Message $question) use (&$taken): array {
        return ['taken' => $taken];
    });
    while ($going) {
        pcntl_signal_dispatch();
        foreach ($bus->consume($name, 16, 1.0) as $delivery) {
            echo $delivery->key(), ' ', $delivery->message->subject, ' ', $delivery->message->body, "\n";
            $delivery->ack('printed');
            $taken++;
            pcntl_signal_dispatch();
            if (!$going) {
                break;
            }
        }
    }
    $bus->close(); // BYE: what is not settled goes to others at once
} catch (BusError | InvalidArgumentException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
