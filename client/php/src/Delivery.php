<?php

declare(strict_types=1);

namespace Longline;

/** How an event came to the handler. */
final class Delivery
{
    public function __construct(
        /** 1, 2, … */
        public readonly int $attempt = 1,
        /** It may have been handled before. */
        public readonly bool $redelivered = false,
        /** "pull" or "callback". */
        public readonly string $transport = '',
    ) {
    }
}
