<?php

declare(strict_types=1);

namespace Longline;

/** Callbacks: verified, and answered by calling a handler once per event. Trying again is the gateway's. */
final class Callback
{
    /**
     * Verifies a callback (Standard Webhooks, HMAC-SHA256) and returns what it
     * carries: an event, or of a batch a list. `headers` may be spelled in any
     * case, each a text or a list of one; `body` are the bytes as they came;
     * `secret` is "whsec_…", or several while it is being rotated.
     *
     * @param array<string, string|list<string>> $headers
     * @param string|list<string> $secret
     * @return Event|list<Event>
     * @throws SignatureException where none of them signed it within `tolerance` seconds
     * @throws LonglineException of code "protocol" where what was signed is no event
     */
    public static function verify(array $headers, string $body, #[\SensitiveParameter] string|array $secret, int $tolerance = 300, ?float $now = null): Event|array
    {
        $keys = array_map(self::key(...), (array) $secret);
        if (!$keys) {
            throw new \InvalidArgumentException('there is no secret: want "whsec_…", as the subscription was given it');
        }
        $headers = self::lower($headers);
        [$id, $stamp, $given] = [$headers['webhook-id'] ?? '', $headers['webhook-timestamp'] ?? '', $headers['webhook-signature'] ?? ''];
        if ($id === '' || $stamp === '' || $given === '') {
            throw new SignatureException('webhook-id, webhook-timestamp and webhook-signature are needed');
        }
        if (!preg_match('/^\d{1,15}$/D', $stamp)) {
            throw new SignatureException('webhook-timestamp is not a number of seconds');
        }
        $age = ($now ?? microtime(true)) - (int) $stamp;
        if (abs($age) > $tolerance) {
            throw new SignatureException(sprintf('the callback was signed %d s ago', $age));
        }
        $ok = false;
        // The gateway signs with two secrets at most; nobody shall make us try thousands.
        $signatures = array_slice(explode(' ', $given), 0, 8);
        foreach ($keys as $key) {
            $want = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$stamp.$body", $key, true));
            foreach ($signatures as $signature) {
                $ok = hash_equals($want, $signature) || $ok;
            }
        }
        if (!$ok) {
            throw new SignatureException('webhook-signature is not of this body by this secret');
        }
        $value = Json::decode($body);
        return is_array($value) && array_is_list($value) ? array_map(Event::of(...), $value) : Event::of($value);
    }

    /**
     * What is to be answered to a callback, whatever serves HTTP.
     *
     * @param array<string, string|list<string>> $headers
     * @param string|list<string> $secret
     * @param callable(Event, Delivery): mixed $handler
     */
    public static function answer(array $headers, string $body, #[\SensitiveParameter] string|array $secret, callable $handler): Answer
    {
        try {
            $payload = self::verify($headers, $body, $secret);
        } catch (SignatureException $error) {
            // It counts as the endpoint's trouble: a wrong secret here must cost no event.
            return self::text(401, $error->getMessage());
        } catch (LonglineException $error) {
            return self::text(400, $error->getMessage());
        }
        $headers = self::lower($headers);
        $attempt = (int) ($headers['longline-attempt'] ?? 1);
        $again = ($headers['longline-redelivery'] ?? '') === 'true' || $attempt > 1;
        $rejected = [];
        foreach (is_array($payload) ? $payload : [$payload] as $event) {
            if ($event->type === 'longline.test') {
                continue;
            }
            try {
                $handler($event, new Delivery(max($attempt, 1), $again, 'callback'));
            } catch (Reject $error) {
                $rejected[] = $event->id;
            } catch (RetryAfter $error) {
                return self::text(503, 'not handled, try again', ['retry-after' => (string) (int) ceil($error->seconds)]);
            } catch (\Throwable $error) {
                error_log("longline: the handler failed for {$event->id}: {$error->getMessage()}");
                return self::text(500, 'not handled, try again');
            }
        }
        if (!$rejected) {
            return new Answer(204);
        }
        return is_array($payload)
            ? new Answer(200, ['content-type' => 'application/json'], Json::encode(['rejected' => $rejected]))
            : self::text(422, 'the handler rejected the event');
    }

    /**
     * Takes the present request as a callback and answers it: all that a plain
     * PHP file needs.
     *
     * @param string|list<string> $secret
     * @param callable(Event, Delivery): mixed $handler
     */
    public static function serve(#[\SensitiveParameter] string|array $secret, callable $handler): void
    {
        if (($_SERVER['REQUEST_METHOD'] ?? '') !== 'POST') {
            self::send(self::text(405, 'POST only', ['allow' => 'POST']));
            return;
        }
        $headers = [];
        foreach ($_SERVER as $name => $value) {
            if (str_starts_with((string) $name, 'HTTP_')) {
                $headers[strtr(substr((string) $name, 5), '_', '-')] = (string) $value;
            }
        }
        self::send(self::answer($headers, (string) file_get_contents('php://input'), $secret, $handler));
    }

    private static function send(Answer $answer): void
    {
        http_response_code($answer->status);
        foreach ($answer->headers as $name => $value) {
            header("$name: $value");
        }
        echo $answer->body;
    }

    private static function key(mixed $text): string
    {
        $key = is_string($text) ? base64_decode(preg_replace('/^whsec_/', '', $text), true) : false;
        if ($key === false || $key === '') {
            throw new \InvalidArgumentException('a secret is not "whsec_" and base64, as the subscription was given it');
        }
        return $key;
    }

    /** @return array<string, string> */
    private static function lower(array $headers): array
    {
        $made = [];
        foreach ($headers as $name => $value) {
            $made[strtolower((string) $name)] = is_array($value) ? (string) ($value[0] ?? '') : (string) $value;
        }
        return $made;
    }

    private static function text(int $status, string $text, array $headers = []): Answer
    {
        return new Answer($status, ['content-type' => 'text/plain; charset=utf-8'] + $headers, $text);
    }
}
