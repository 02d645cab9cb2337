<?php

declare(strict_types=1);

namespace Longline;

/**
 * Talks to one gateway, or to several behind one address.
 *
 * `token` is a JWT or what returns one, which is asked before the first request
 * and after a 401. `timeout` is in seconds for each request. `logger` is any
 * PSR-3 logger; without one trouble is told by error_log.
 */
final class Client
{
    private readonly string $url;
    private readonly Transport $transport;
    private string $cached = '';

    /** @param string|callable(): string $token */
    public function __construct(
        string $url,
        private readonly mixed $token = '',
        ?Transport $transport = null,
        private readonly ?object $logger = null,
        private readonly float $timeout = 10.0,
        private readonly float $minBackoff = 0.5,
        private readonly float $maxBackoff = 30.0,
    ) {
        if (!preg_match('{^https?://[^/]+}', $url)) {
            throw new LonglineException('bad_request', "the gateway is \"$url\", want an http or https URL");
        }
        if (!is_string($token) && !is_callable($token)) {
            throw new LonglineException('bad_request', 'the token is of type ' . get_debug_type($token) . ', want a text or what returns one');
        }
        $this->url = rtrim($url, '/');
        $this->transport = $transport ?? new StreamTransport();
    }

    /**
     * Publishes; returns when the events are durable: the id and cursor of each,
     * and `duplicate` where it was there already. Trying again, which it does by
     * itself, publishes nothing twice. Up to 1,000 events or 4 MiB are appended
     * all or none, more in as many requests as it takes.
     *
     * @param array<string, mixed>|list<array<string, mixed>> $events an event, with its `type`, or a list
     * @return ($events is list ? list<array{id: string, cursor: string, duplicate?: bool}> : array{id: string, cursor: string, duplicate?: bool})
     */
    public function publish(string $channel, array $events): array
    {
        $list = array_is_list($events);
        $published = [];
        $page = [];
        $size = 0;
        foreach ($list ? $events : [$events] as $event) {
            if (!is_array($event) || !is_string($event['type'] ?? null) || $event['type'] === '') {
                throw new LonglineException('bad_request', 'an event to publish is an array with a type');
            }
            $letter = Json::encode($event + ['id' => self::id()]);
            if ($page && (count($page) === 1000 || $size + strlen($letter) > 4_000_000)) {
                array_push($published, ...$this->post($channel, $page));
                [$page, $size] = [[], 0];
            }
            $page[] = $letter;
            $size += strlen($letter) + 1;
        }
        if ($page) {
            array_push($published, ...$this->post($channel, $page));
        }
        return $list ? $published : $published[0];
    }

    /** @param list<string> $letters */
    private function post(string $channel, array $letters): array
    {
        $path = '/v1/channels/' . rawurlencode($channel) . '/events';
        $events = $this->request('POST', $path, '[' . implode(',', $letters) . ']', attempts: 6)['events'] ?? [];
        if (count($events) !== count($letters)) {
            throw new LonglineException('protocol', 'the gateway answered for ' . count($events) . ' events of ' . count($letters));
        }
        return $events;
    }

    /**
     * A worker that pulls a subscription's events.
     *
     * @param callable(Event, Delivery): mixed $handler
     */
    public function pull(string $subscription, callable $handler, Options $options = new Options()): Puller
    {
        return new Puller($this, $subscription, $handler, $options);
    }

    public function subscriptions(): Subscriptions
    {
        return new Subscriptions($this);
    }

    public function channels(): Channels
    {
        return new Channels($this);
    }

    /** Ends a token, or those of `sub` that were issued before then (RFC 3339; now). For admins. */
    public function revoke(string $jti = '', string $sub = '', string $before = ''): void
    {
        $body = $jti !== '' ? ['jti' => $jti] : ['sub' => $sub, 'before' => $before ?: gmdate('Y-m-d\TH:i:s\Z')];
        $this->request('POST', '/v1/tokens/revoke', $body);
    }

    /**
     * Makes a request; returns the answer's JSON, objects as arrays, or null.
     * `attempts` beyond 1 are for what may be done twice. Text goes as it is,
     * all else as JSON.
     *
     * @param array<string, string> $headers
     */
    public function request(string $method, string $path, mixed $body = null, int $attempts = 1, array $headers = [], ?float $timeout = null): mixed
    {
        $payload = $body === null || is_string($body) ? $body : Json::encode($body);
        $fresh = false;
        for ($attempt = 1;; $attempt++) {
            try {
                return $this->once($method, $path, $payload, $headers, $timeout ?? $this->timeout, $fresh);
            } catch (LonglineException $error) {
                if ($error->status === 401 && !is_string($this->token) && !$fresh) {
                    $fresh = true;
                    $attempt--;
                    continue;
                }
                if (!$error->retry || $attempt >= $attempts) {
                    throw $error;
                }
                self::sleep($error->retryAfter ?? $this->backoff($attempt - 1));
            }
        }
    }

    private function once(string $method, string $path, ?string $payload, array $headers, float $timeout, bool $fresh): mixed
    {
        $id = bin2hex(random_bytes(8));
        $headers += ['accept' => 'application/json, application/problem+json', 'x-request-id' => $id];
        if ($payload !== null) {
            $headers += ['content-type' => $method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'];
        }
        $token = $this->token;
        if (!is_string($token)) {
            $token = $fresh || $this->cached === '' ? $token() : $this->cached;
            if (!is_string($token)) {
                throw new LonglineException('unauthorized', 'the token is of type ' . get_debug_type($token) . ', want a text');
            }
            $this->cached = $token;
        }
        $token = trim($token); // a file's has a line's end behind it
        if (!preg_match('/^[!-~]*$/D', $token)) {
            throw new LonglineException('unauthorized', 'the token has characters that no token has');
        }
        if ($token !== '') {
            $headers['authorization'] = "Bearer $token";
        }
        $answer = $this->transport->send($method, $this->url . $path, $headers, $payload, $timeout);
        if ($answer->status < 200 || $answer->status > 299) {
            throw LonglineException::ofAnswer($answer, $id);
        }
        return trim($answer->body) === '' ? null : Json::decode($answer->body);
    }

    /** A wait that doubles, with full jitter, in seconds. */
    public function backoff(int $n): float
    {
        return mt_rand() / mt_getrandmax() * min($this->maxBackoff, $this->minBackoff * 2 ** min($n, 40));
    }

    /** Tells of trouble. */
    public function warn(string $message, ?\Throwable $error = null): void
    {
        if ($this->logger) {
            $this->logger->warning("longline: $message", $error ? ['exception' => $error] : []);
        } else {
            error_log("longline: $message" . ($error ? ': ' . $error->getMessage() : ''));
        }
    }

    public static function sleep(float $seconds): void
    {
        if ($seconds > 0) {
            usleep((int) min($seconds * 1e6, PHP_INT_MAX / 2));
        }
    }

    private static function id(): string
    {
        return bin2hex(random_bytes(16));
    }
}
