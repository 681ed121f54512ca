<?php
declare(strict_types=1);

namespace Smpbus;

/** A CURVE key pair as `smpbus keys new NAME` writes it: NAME.key (secret) and NAME.pub beside it. */
final class KeyPair
{
    public string $public;
    public string $secret;

    public function __construct(string $public, string $secret)
    {
        $this->public = $public;
        $this->secret = $secret;
    }

    /** Read NAME.key and the NAME.pub beside it. Throws InvalidArgumentException naming the file. */
    public static function load(string $keyFile): self
    {
        return new self(
            self::loadPublic(preg_replace('/\.key\z/', '', $keyFile) . '.pub'),
            self::loadPublic($keyFile)
        );
    }

    /** Read one key, as that of the router. Throws InvalidArgumentException naming the file. */
    public static function loadPublic(string $file): string
    {
        $line = is_readable($file) ? trim((string) file_get_contents($file)) : null;
        if ($line === null) {
            throw new \InvalidArgumentException("$file: cannot be read");
        }
        if (preg_match('~\A[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\z~', $line) !== 1) {
            throw new \InvalidArgumentException("$file: no CURVE key (one line of 40 characters)");
        }
        return $line;
    }

    /** What var_dump shows: never the secret. */
    public function __debugInfo(): array
    {
        return ['public' => $this->public];
    }
}
