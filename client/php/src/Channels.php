<?php

declare(strict_types=1);

namespace Longline;

/** Channels and their logs. */
final class Channels
{
    public function __construct(private readonly Client $client)
    {
    }

    /** @return array{channel: string, epoch: string, first: int, head: int, events: int, bytes: int, connections: int} */
    public function get(string $channel): array
    {
        return $this->client->request('GET', '/v1/channels/' . rawurlencode($channel));
    }

    /**
     * Names, page by page; for admins.
     *
     * @return \Generator<int, string>
     */
    public function list(string $prefix = '', ?int $limit = null): \Generator
    {
        $page = '';
        do {
            $answer = $this->client->request('GET', '/v1/channels' . Query::of(compact('prefix', 'limit', 'page')));
            foreach ($answer['channels'] as $one) {
                yield is_array($one) ? $one['channel'] : $one;
            }
            $page = $answer['next'] ?? '';
        } while ($page !== '');
    }

    /**
     * A page of the log, and the position behind it.
     *
     * @param list<string> $types
     * @return array{events: list<Event>, cursor: string}
     */
    public function read(string $channel, string $since = '', array $types = [], string $filter = '', ?int $limit = null): array
    {
        $query = Query::of(['since' => $since, 'types' => implode(',', $types), 'filter' => $filter, 'limit' => $limit]);
        $answer = $this->client->request('GET', '/v1/channels/' . rawurlencode($channel) . "/events$query");
        return ['events' => array_map(Event::of(...), $answer['events']), 'cursor' => $answer['cursor']];
    }

    /** Drops the log; for admins. */
    public function delete(string $channel): void
    {
        $this->client->request('DELETE', '/v1/channels/' . rawurlencode($channel));
    }
}
