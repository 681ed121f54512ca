<?php
declare(strict_types=1);

namespace Smpbus;

/** One ZeroMQ connection to the router: multipart messages in and out, without waiting to send. */
final class Connection
{
    /** libzmq itself tries again so often while nobody listens, or somebody accepts and hangs up. */
    private const RECONNECT_MS = 500;
    private const BYE_MS = 500;

    private \ZMQContext $context;
    private \ZMQSocket $socket;
    private \ZMQPoll $poll;

    public function __construct(string $address, ?KeyPair $key, ?string $serverKey)
    {
        // Not the persistent context that is the default: that one would outlive a fork.
        $this->context = new \ZMQContext(1, false);
        $this->socket = new \ZMQSocket($this->context, \ZMQ::SOCKET_DEALER);
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_LINGER, 0);
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_SNDHWM, 0);
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_RCVHWM, 0);
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_RECONNECT_IVL, self::RECONNECT_MS);
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_IPV6, (int) (strpos($address, '[') !== false));
        if ($key !== null && $serverKey !== null) {
            $this->socket->setSockOpt(\ZMQ::SOCKOPT_CURVE_SERVERKEY, $serverKey);
            $this->socket->setSockOpt(\ZMQ::SOCKOPT_CURVE_PUBLICKEY, $key->public);
            $this->socket->setSockOpt(\ZMQ::SOCKOPT_CURVE_SECRETKEY, $key->secret);
        }
        $this->socket->connect($address);
        $this->poll = new \ZMQPoll();
        $this->poll->add($this->socket, \ZMQ::POLL_IN);
    }

    /** Send, or drop where there is nobody to send to: the session is over then, and found so. */
    public function send(string $verb, string $payload): void
    {
        $this->socket->sendMulti([$verb, $payload], \ZMQ::MODE_DONTWAIT);
    }

    /** Wait for one message of the router, up to so long; null: there was none. */
    public function receive(float $waitS): ?array
    {
        $readable = $writable = [];
        try {
            if ($this->poll->poll($readable, $writable, (int) ceil($waitS * 1000)) === 0) {
                return null;
            }
        } catch (\ZMQPollException $interrupted) {
            return null; // by a signal; its handler runs when pcntl_signal_dispatch() is called
        }
        return $this->socket->recvMulti(\ZMQ::MODE_DONTWAIT) ?: null;
    }

    /** Let what was said, as a BYE, leave for a moment when this is dropped. */
    public function linger(): void
    {
        $this->socket->setSockOpt(\ZMQ::SOCKOPT_LINGER, self::BYE_MS);
    }
}
