<?php

declare(strict_types=1);

namespace Longline;

/** Tokens, made where the secret is: on your server, for who is signed in. */
final class Token
{
    /**
     * Makes a JWT with the gateway's secret of 32 bytes or more. `subscribe` and
     * `publish` are patterns of channels, `subscriptions` of names; `ttl` is in
     * seconds, `claims` are others. `algorithm` is HS256, HS384, HS512, or EdDSA
     * where the sodium extension is; the secret is then the 64 bytes of an
     * Ed25519 secret key, as sodium makes it.
     *
     * @param list<string> $subscribe
     * @param list<string> $publish
     * @param list<string> $subscriptions
     * @param array<string, mixed> $claims
     */
    public static function mint(
        #[\SensitiveParameter] string $secret,
        string $sub,
        array $subscribe = [],
        array $publish = [],
        array $subscriptions = [],
        bool $admin = false,
        int $ttl = 3600,
        string $algorithm = 'HS256',
        array $claims = [],
    ): string {
        $hashes = ['HS256' => 'sha256', 'HS384' => 'sha384', 'HS512' => 'sha512'];
        if ($algorithm !== 'EdDSA' && !isset($hashes[$algorithm])) {
            throw new \InvalidArgumentException("algorithm is $algorithm, want HS256, HS384, HS512 or EdDSA");
        }
        if (strlen($secret) < 32) {
            throw new \InvalidArgumentException('the secret has ' . strlen($secret) . ' bytes, want 32 at least');
        }
        $rights = ['subscribe' => $subscribe, 'publish' => $publish, 'subscriptions' => $subscriptions];
        if ($admin) {
            $rights['admin'] = true;
        }
        $now = time();
        $body = ['sub' => $sub, 'iat' => $now, 'exp' => $now + $ttl, 'jti' => bin2hex(random_bytes(16))] + $claims + ['longline' => $rights];
        $signed = self::part(Json::encode(['alg' => $algorithm, 'typ' => 'JWT'])) . '.' . self::part(Json::encode($body));
        if ($algorithm !== 'EdDSA') {
            return $signed . '.' . self::part(hash_hmac($hashes[$algorithm], $signed, $secret, true));
        }
        if (!function_exists('sodium_crypto_sign_detached')) {
            throw new \RuntimeException('EdDSA needs the sodium extension');
        }
        return $signed . '.' . self::part(sodium_crypto_sign_detached($signed, $secret));
    }

    private static function part(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
