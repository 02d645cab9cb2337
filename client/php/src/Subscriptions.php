<?php

declare(strict_types=1);

namespace Longline;

/**
 * Durable subscriptions. Names and shapes are the HTTP API's own.
 *
 * @phpstan-type Settings array{channels?: list<string>, types?: list<string>, filter?: string, start?: string, window?: int,
 *   group?: array{partitions: int}, expires_after?: string, description?: string, labels?: array<string, string>,
 *   callback?: array<string, mixed>}
 * @phpstan-type Info array{name: string, channels: list<string>, cursor: string, status: array<string, mixed>}
 * @phpstan-type Attempt array{time: string, status: int, latency_ms: float, error?: string, body?: string, cursors: list<string>}
 */
final class Subscriptions
{
    public function __construct(private readonly Client $client)
    {
    }

    private function call(string $method, string $name, string $path = '', mixed $body = null, int $attempts = 1, array $headers = [], ?float $timeout = null): mixed
    {
        return $this->client->request($method, '/v1/subscriptions/' . rawurlencode($name) . $path, $body, $attempts, $headers, $timeout);
    }

    /** @return Info */
    public function get(string $name): array
    {
        return $this->call('GET', $name);
    }

    /**
     * Creates or replaces; the answer has the callback's secret where one was made, this once.
     *
     * @param Settings $settings
     * @return Info
     */
    public function put(string $name, array $settings): array
    {
        return $this->call('PUT', $name, '', $settings);
    }

    /**
     * Creates, unless there is one of that name, which then stays as it is: what a
     * program does at its start. Says whether it was created.
     *
     * @param Settings $settings
     */
    public function create(string $name, array $settings): bool
    {
        try {
            $this->call('PUT', $name, '', $settings, headers: ['if-none-match' => '*']);
            return true;
        } catch (LonglineException $error) {
            if ($error->errorCode === 'conflict') {
                return false;
            }
            throw $error;
        }
    }

    /**
     * Changes what is named, and nothing else (RFC 7396: null removes).
     *
     * @param array<string, mixed> $changes
     * @return Info
     */
    public function patch(string $name, array $changes): array
    {
        return $this->call('PATCH', $name, '', (object) $changes);
    }

    public function delete(string $name): void
    {
        $this->call('DELETE', $name);
    }

    /**
     * All of them, page by page as they are asked for; `label` is `name=value`.
     *
     * @return \Generator<int, Info>
     */
    public function list(string $prefix = '', string $state = '', string $label = '', ?int $limit = null): \Generator
    {
        $cursor = '';
        do {
            $query = Query::of(compact('prefix', 'state', 'label', 'limit', 'cursor'));
            $answer = $this->client->request('GET', "/v1/subscriptions$query");
            foreach ($answer['subscriptions'] as $info) {
                yield $info;
            }
            $cursor = $answer['next'] ?? '';
        } while ($cursor !== '');
    }

    /** Moves the cursor, back or forward: a position, "earliest", "latest" or a time (RFC 3339). */
    public function seek(string $name, string $to): void
    {
        $this->call('POST', $name, '/seek', ['to' => $to]);
    }

    public function pause(string $name): void
    {
        $this->call('POST', $name, '/pause');
    }

    public function resume(string $name): void
    {
        $this->call('POST', $name, '/resume');
    }

    /** Acknowledges for whoever has it; the answer is where it stands. */
    public function ack(string $name, string $cursor): string
    {
        return $this->call('POST', $name, '/ack', ['cursor' => $cursor], attempts: 3)['cursor'];
    }

    /** Makes a dead letter of an event that was delivered and is unacknowledged. Of a group it needs who pulls. */
    public function reject(string $name, string $cursor, string $reason = '', int $attempts = 1, string $consumer = ''): void
    {
        $body = ['cursor' => $cursor, 'reason' => Json::clip($reason, 1000), 'attempts' => $attempts];
        $this->call('POST', $name, '/reject', $consumer === '' ? $body : $body + ['consumer' => $consumer], attempts: 3);
    }

    /**
     * Sends one longline.test event by the callback, now.
     *
     * @return array{request: ?array<string, mixed>, status: int, latency_ms: float, error?: string, body?: string}
     */
    public function test(string $name): array
    {
        return $this->call('POST', $name, '/test', timeout: 60.0);
    }

    /** Makes another secret; the old one signs too for 24 hours. */
    public function rotateSecret(string $name): string
    {
        return $this->call('POST', $name, '/rotate-secret')['secret'];
    }

    /**
     * Dead letters, oldest first.
     *
     * @return list<array{event: Event, reason: string, attempts: int, time: string}>
     */
    public function dead(string $name, string $since = '', ?int $limit = null): array
    {
        $answer = $this->call('GET', $name, '/dead' . Query::of(compact('since', 'limit')));
        return array_map(static fn (array $letter) => ['event' => Event::of($letter['event'])] + $letter, $answer['dead']);
    }

    /**
     * Has dead letters delivered again, all or those of these cursors; says how many.
     *
     * @param ?list<string> $cursors null: all
     */
    public function redrive(string $name, ?array $cursors = null): int
    {
        return $this->call('POST', $name, '/dead/redrive', $cursors === null ? ['all' => true] : ['cursors' => $cursors])['redriven'];
    }

    public function clearDead(string $name): void
    {
        $this->call('DELETE', $name, '/dead');
    }

    /**
     * Attempts of the callback, newest first, page by page.
     *
     * @return \Generator<int, Attempt>
     */
    public function attempts(string $name, string $since = '', string $status = '', string $cursor = '', ?int $limit = null): \Generator
    {
        $page = '';
        do {
            $answer = $this->call('GET', $name, '/attempts' . Query::of(compact('since', 'status', 'cursor', 'limit', 'page')));
            foreach ($answer['attempts'] as $attempt) {
                yield $attempt;
            }
            $page = $answer['next'] ?? '';
        } while ($page !== '');
    }

    /**
     * What became of one event.
     *
     * @return array{cursor: string, state: string, since?: string, reason?: string, attempts: list<Attempt>}
     */
    public function trace(string $name, string $cursor = '', string $id = ''): array
    {
        return $this->call('GET', $name, '/trace' . Query::of(compact('cursor', 'id')));
    }

    /**
     * Has events delivered again, once; the cursor stays. Says how many.
     *
     * @param list<string> $cursors
     */
    public function resend(string $name, array $cursors): int
    {
        return $this->call('POST', $name, '/resend', ['cursors' => $cursors])['resent'];
    }

    /**
     * Has what is after `from` up to and including `to` delivered again, by a
     * subscription of its own whose name is returned.
     *
     * @param list<string> $types
     */
    public function replay(string $name, string $from, string $to, array $types = [], string $filter = '', bool $callback = false): string
    {
        $body = array_filter(compact('from', 'to', 'types', 'filter', 'callback'));
        return $this->call('POST', $name, '/replay', $body)['name'];
    }
}
