<?php

declare(strict_types=1);

namespace Longline;

/**
 * A worker that pulls a subscription's events and hands them to a handler, one
 * after another. A handler that returns has handled; one that throws is asked
 * again after a while, without end, unless it throws a Reject. An event that
 * failed holds up its key alone, as far as the page goes.
 *
 *     pull ──▶ each event: done before? its key held up? ──▶ handler ──▶ done, rejected or failed
 *      ▲                                                                      │
 *      └──── acknowledge what is done without a hole ◀────────────────────────┘
 */
final class Puller
{
    // The rules that the gateway's callbacks follow, too.
    private const SOON = 600.0;
    private const SOON_WAIT = 15.0;
    private const SUSPECT = 8;
    private const POISON = 3;
    /** After so many answers in a row that can't be read it tries no more. */
    private const MALFORMED = 2;

    private readonly string $consumer;
    private readonly Subscriptions $subscriptions;
    private bool $stopped = false;
    /** @var array<string, true> by cursor: done, and not known to be acknowledged */
    private array $done = [];
    /** @var array<string, true> by identity: handled, ever */
    private array $known = [];
    /** @var array<string, array{tries: int, since: float, due: float, passes: int, vouched: int}> by cursor: what failed */
    private array $failed = [];
    /** @var array<string, array{channel: string, epoch: string, offset: int}> acknowledged, and answered */
    private array $sure = [];
    private int $passes = 0;
    private int $handled = 0;

    /** @param callable(Event, Delivery): mixed $handler */
    public function __construct(
        private readonly Client $client,
        private readonly string $name,
        private readonly mixed $handler,
        private readonly Options $options,
    ) {
        $function = new \ReflectionFunction($handler(...));
        if ($function->isGenerator()) {
            throw new \InvalidArgumentException('the handler is a generator: it would run when nobody asks');
        }
        if ($function->getNumberOfRequiredParameters() > 2) {
            throw new \InvalidArgumentException('the handler takes more than an event and its delivery');
        }
        $this->consumer = $options->consumer !== '' ? $options->consumer : bin2hex(random_bytes(8));
        $this->subscriptions = $client->subscriptions();
    }

    /** Seconds by a clock that nobody sets. */
    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    /**
     * Ends `run` after the event at hand, or when the question under way is
     * answered, which waits for events up to `wait` seconds; for signal handlers.
     */
    public function stop(): void
    {
        $this->stopped = true;
    }

    /**
     * Works until `stop`, or with `untilEmpty` as long as there is something to
     * do now, as a job of cron's does: what failed is left for the next time.
     * Returns how many events were handled or rejected. Throws the
     * LonglineException that ended it.
     */
    public function run(bool $untilEmpty = false): int
    {
        $this->handled = 0;
        $ack = '';
        $wait = 0.0;
        $failures = 0;
        while (!$this->stopped) {
            try {
                $page = $this->pull($ack, $wait);
                $this->acknowledged($ack);
                $failures = 0;
            } catch (LonglineException $error) {
                $taken = $error->errorCode === 'conflict';
                $malformed = $error->errorCode === 'protocol' && $failures >= self::MALFORMED;
                if (!$error->retry && !$taken || $malformed || $untilEmpty && $taken && $error->retryAfter === null) {
                    throw $error;
                }
                $this->client->warn($taken ? "another consumer has {$this->name}, will try again" : 'the pull failed, will try again', $error);
                $this->rest($error->retryAfter ?? $this->client->backoff($failures++));
                $ack = '';
                continue;
            }
            foreach ($page['gaps'] ?? [] as $gap) {
                $this->client->warn("events of {$this->name} were missed: " . Json::encode($gap));
                if ($this->options->onGap) {
                    ($this->options->onGap)($gap);
                }
            }
            $before = $this->handled;
            [$ack, $due] = $this->round($page);
            if ($untilEmpty && $this->handled === $before && $ack === '') {
                break;
            }
            // An acknowledgement waits for nothing: its answer says that it counts.
            $wait = $untilEmpty || $ack !== '' || $due !== null ? 0.0 : $this->options->wait;
            if ($due !== null && $ack === '') {
                $this->rest(min($due - self::now(), $this->options->hold / 3));
            }
        }
        $this->leave($ack);
        return $this->handled;
    }

    /** Sleeps, in naps: a signal that comes just before a sleep does not end it. */
    private function rest(float $seconds): void
    {
        for ($until = self::now() + $seconds; !$this->stopped && self::now() < $until;) {
            Client::sleep(min($until - self::now(), 0.5));
        }
    }

    /** @return array{events: list<array<string, mixed>>, cursor: string, gaps?: list<array<string, string>>, redelivery?: array{cursor: string}} */
    private function pull(string $ack, float $wait): array
    {
        $query = Query::of([
            'max' => $this->options->page, 'wait' => "{$wait}s", 'ack' => $ack, 'consumer' => $this->consumer, 'hold' => "{$this->options->hold}s",
        ]);
        $page = $this->client->request('GET', '/v1/subscriptions/' . rawurlencode($this->name) . "/events$query", timeout: $wait + 10);
        if (!is_array($page['events'] ?? null) || !is_string($page['cursor'] ?? null)) {
            throw new LonglineException('protocol', "the answer is no page of events: is it a gateway's?", retry: true);
        }
        return $page;
    }

    private function acknowledged(string $ack): void
    {
        foreach (Position::parse($ack) as $channel => $cursor) {
            $this->sure[$channel] = $cursor;
        }
        $open = fn (string $cursor) => !Position::covers($this->sure, $cursor);
        $this->done = array_filter($this->done, $open, ARRAY_FILTER_USE_KEY);
    }

    /**
     * Handles what can be of a page.
     *
     * @return array{string, ?float} what to acknowledge, and when the first that failed is due
     */
    private function round(array $page): array
    {
        $again = Position::parse($page['redelivery']['cursor'] ?? '');
        $began = self::now();
        $held = [];
        $due = null;
        $prefix = [];
        $open = [];
        $whole = true;
        foreach ($page['events'] as $value) {
            $event = Event::of($value);
            $key = $event->partitionkey !== '' ? $event->partitionkey : $event->id;
            $late = self::now() - $began > $this->options->hold / 3 || $this->stopped;
            if (!isset($held[$key]) && !$late) {
                $waits = $this->handle($event, $again);
                if ($waits !== null) {
                    $held[$key] = true;
                    $due = min($due ?? $waits, $waits);
                }
            }
            if (!isset($this->done[$event->cursor])) {
                $open[$event->channel] = true;
                $whole = false;
            } elseif (!isset($open[$event->channel])) {
                $prefix[$event->channel] = $event->cursor;
            }
        }
        if ($whole) {
            return [$page['events'] || isset($page['gaps']) ? $page['cursor'] : '', null];
        }
        // Not again what is acknowledged already: dead letters that were put back stand there, too.
        $ack = implode(',', array_filter($prefix, fn (string $cursor) => !Position::covers($this->sure, $cursor)));
        return [$ack, $due];
    }

    /** Has an event handled, unless that is known to be done or not yet due; returns when it is due. */
    private function handle(Event $event, array $again): ?float
    {
        $identity = "{$event->channel} {$event->source} {$event->id}";
        $asked = Position::covers($this->sure, $event->cursor); // acknowledged: somebody asked for it again
        $redelivered = $asked || Position::covers($again, $event->cursor);
        if (isset($this->done[$event->cursor])) {
            return null;
        }
        if (isset($this->known[$identity]) && $redelivered && !$asked) {
            $this->done[$event->cursor] = true;
            return null;
        }
        $history = $this->failed[$event->cursor] ?? ['tries' => 0, 'since' => self::now(), 'due' => 0.0, 'passes' => 0, 'vouched' => 0];
        if ($history['due'] > self::now()) {
            return $history['due'];
        }
        try {
            ($this->handler)($event, new Delivery($history['tries'] + 1, $redelivered, 'pull'));
            $this->passes++;
            $this->settle($event, $identity);
            return null;
        } catch (Reject $reject) {
            return $this->reject($event, $identity, $reject, $history['tries'] + 1);
        } catch (\Throwable $error) {
            return $this->failed($event, $identity, $error, $history);
        }
    }

    private function settle(Event $event, string $identity): void
    {
        $this->handled++;
        $this->done[$event->cursor] = true;
        unset($this->failed[$event->cursor], $this->known[$identity]);
        $this->known[$identity] = true;
        if (count($this->known) > $this->options->remember) {
            unset($this->known[array_key_first($this->known)]);
        }
    }

    /** @return ?float when to try again, where the dead letter wasn't taken */
    private function reject(Event $event, string $identity, \Throwable $why, int $tries): ?float
    {
        try {
            $this->subscriptions->reject($this->name, $event->cursor, $why->getMessage() ?: $why::class, $tries, $this->consumer);
        } catch (LonglineException $error) {
            $this->client->warn('the dead letter was not taken', $error);
            if ($error->retry || $error->errorCode === 'conflict') {
                return self::now() + ($error->retryAfter ?? 1.0);
            }
        }
        $this->settle($event, $identity);
        unset($this->known[$identity]);
        if ($this->options->onReject) {
            ($this->options->onReject)($event, $why);
        } else {
            $this->client->warn("an event was set aside ({$event->id})", $why);
        }
        return null;
    }

    private function failed(Event $event, string $identity, \Throwable $error, array $history): ?float
    {
        $now = self::now();
        $passed = $history['tries'] > 0 && $history['passes'] !== $this->passes;
        $history['vouched'] = $passed ? $history['vouched'] + ($history['tries'] >= self::SUSPECT ? 1 : 0) : 0;
        $history['tries']++;
        $history['passes'] = $this->passes;
        $limit = $this->options->attempts;
        if ($history['vouched'] >= self::POISON || $limit > 0 && $history['tries'] >= $limit) {
            unset($this->failed[$event->cursor]);
            return $this->reject($event, $identity, $error, $history['tries']);
        }
        $most = $now - $history['since'] < self::SOON ? min($this->options->max, self::SOON_WAIT) : $this->options->max;
        $wait = mt_rand() / mt_getrandmax() * min($most, $this->options->min * 2 ** min($history['tries'] - 1, 40));
        $asked = $error instanceof RetryAfter ? $error->seconds : 0.0;
        $history['due'] = $now + max($wait, $asked);
        $this->failed[$event->cursor] = $history;
        $this->client->warn('the handler failed, will try again', $error);
        return $history['due'];
    }

    /** Acknowledges the rest and lets the subscription go. */
    private function leave(string $ack): void
    {
        try {
            if ($ack !== '') {
                $this->pull($ack, 0.0);
            }
            $path = '/v1/subscriptions/' . rawurlencode($this->name) . '/events' . Query::of(['consumer' => $this->consumer]);
            $this->client->request('DELETE', $path);
        } catch (LonglineException $error) {
            $this->client->warn('the subscription was not given up, its hold ends by itself', $error);
        }
    }
}
