<?php

declare(strict_types=1);

namespace Longline;

/**
 * How a puller works. `page` events at a time, waited for up to `wait` seconds,
 * held for `hold` seconds between two questions. `attempts` calls of the handler
 * before an event is rejected: 0 is without end. `min` and `max` bound the waits
 * between tries, in seconds. `remember` ids of handled events. `onGap` gets what
 * won't come (`channel`, `from`, `to`, `reason`), `onReject` the event and the
 * error.
 */
final class Options
{
    public function __construct(
        public readonly string $consumer = '',
        public readonly int $page = 100,
        public readonly float $wait = 20.0,
        public readonly float $hold = 30.0,
        public readonly int $attempts = 0,
        public readonly float $min = 1.0,
        public readonly float $max = 600.0,
        public readonly int $remember = 10_000,
        public readonly ?\Closure $onGap = null,
        public readonly ?\Closure $onReject = null,
    ) {
    }
}
